"""Training curves as inline SVG, drawn so that the page's style sheet colours them, in light and in dark."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from stillhouse.contract.report import Curve, Report
from stillhouse.wording import Measure, decimal, measure, percent

MAX_POINTS: Final = 400
_WIDE_RATIO: Final = 20  # largest by smallest value, from which on a logarithmic axis shows more

# Colours that stand for a variable of the style sheet, and are replaced by it in the finished SVG.
_INK, _FAINT = "#010101", "#010102"
_SUBJECTS: Final = MappingProxyType({
    "distilling": ("student", "#010103"),
    "control": ("control", "#010104"),
    "teacher": ("teacher", "#010105"),
})
_VARIABLES: Final = MappingProxyType({
    _INK: "var(--muted)", _FAINT: "var(--line)",
    **{colour: f"var(--{name})" for name, colour in _SUBJECTS.values()},
})
_LEARNING_RATE: Final = "learning_rate"
_VALIDATION: Final = "validation."
_GRADIENT_SHARE: Final = "gradient_share."
_TITLES: Final = MappingProxyType({
    "validation.loss": "Loss on validation",
    "loss": "Loss in training",
    "loss.kl": "Divergence from the teacher (kl)",
    "loss.bce": "Cross-entropy with the teacher (bce)",
    "loss.cosine": "One minus cosine with the teacher (cosine)",
    "loss.mse": "Squared difference from the teacher (mse)",
    "loss.cross_entropy": "Cross-entropy with the labels",
    "loss.binary_cross_entropy": "Cross-entropy with the labels",
    "loss.squared_error": "Squared difference from the true values",
    "loss.huber": "Huber's distance from the true values",
    _LEARNING_RATE: "Learning rate",
})
_MAIN: Final = frozenset({"validation.loss", "loss"})


@dataclass(frozen=True)
class Line:
    """One model's curve."""

    subject: str
    colour: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Chart:
    """One metric of every model that has it, drawn."""

    title: str
    summary: str
    subjects: list[str]
    is_minor: bool
    svg: Markup


def draw_charts(report: Report) -> list[Chart]:
    """A chart for each metric, in the order in which a reader wants them."""
    by_metric: dict[str, list[Line]] = {}
    for curve in report.curves:
        phase, _, metric = curve.name.partition("/")
        if phase in _SUBJECTS and curve.steps:
            by_metric.setdefault(metric, []).append(_line(phase, curve))
    metrics = sorted(by_metric, key=lambda metric: (_rank(metric, report.task), metric))
    return [_chart(number, metric, by_metric[metric], report) for number, metric in enumerate(metrics)]


def _score(metric: str, task: str) -> Measure | None:
    """The score on validation that the metric is; None of a loss or a learning rate."""
    return measure(task, metric.removeprefix(_VALIDATION)) if metric.startswith(_VALIDATION) else None


def _rank(metric: str, task: str) -> int:
    """The task's scores first, agreement after them, then what has a title, then the rest."""
    order = list(_TITLES)
    if _score(metric, task):
        return -1 if metric.endswith("agreement") else -2
    return order.index(metric) if metric in order else len(order)


def _title(metric: str, task: str) -> str:
    score = _score(metric, task)
    if score:
        return f"{score.title} on validation"
    if metric.startswith(_GRADIENT_SHARE):
        return f"Share of the gradient: {metric.removeprefix(_GRADIENT_SHARE)}"
    name = metric.removeprefix("loss.")
    return _TITLES.get(metric, f"Term of the loss: {name}" if name != metric else metric)


def _told(metric: str, task: str) -> Callable[[float | None], str]:
    score = _score(metric, task)
    return percent if metric.startswith(_GRADIENT_SHARE) else score.told if score else decimal


def _line(phase: str, curve: Curve) -> Line:
    name, colour = _SUBJECTS[phase]
    stride = -(-len(curve.steps) // MAX_POINTS)
    # Counted from the end, so that the last point is always there.
    return Line(name, colour, curve.steps[::-1][::stride][::-1], curve.values[::-1][::stride][::-1])


def _chart(number: int, metric: str, lines: Sequence[Line], report: Report) -> Chart:
    title, told = _title(metric, report.task), _told(metric, report.task)
    with _style(number):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            axes.plot(line.steps, line.values, color=line.colour, linewidth=1.6, solid_capstyle="round")
        if metric != _LEARNING_RATE:
            _mark_selected(axes, lines, report)
        _dress(axes, lines, is_share=told is percent, is_loss=told is decimal and metric != _LEARNING_RATE)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(
        title=title,
        summary="; ".join(_summary(line, told) for line in lines).capitalize() + ".",
        subjects=[line.subject for line in lines],
        is_minor=metric not in _MAIN and _score(metric, report.task) is None,
        svg=_inline(drawn.getvalue().decode(), number, title),
    )


def _style(number: int) -> AbstractContextManager[None]:
    return mpl.rc_context({
        "svg.fonttype": "none", "svg.hashsalt": str(number), "text.parse_math": False, "font.size": 9,
        "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.edgecolor": _FAINT, "grid.color": _FAINT, "axes.grid": True, "axes.grid.axis": "y",
        "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "xtick.major.size": 3, "ytick.major.size": 0,
    })


def _mark_selected(axes: Axes, lines: Sequence[Line], report: Report) -> None:
    """A dot where the exported weights were taken."""
    for line in lines:
        subject = report.subject(line.subject)
        if subject is not None and subject.selected_step in line.steps:
            value = line.values[line.steps.index(subject.selected_step)]
            axes.plot([subject.selected_step], [value], "o", color=line.colour, markersize=5)


def _dress(axes: Axes, lines: Sequence[Line], *, is_share: bool, is_loss: bool) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if is_share:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    elif is_loss and _spans_decades(lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _spans_decades(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.values]
    return 0 < _WIDE_RATIO * min(values) < max(values)


def _inline(svg: str, number: int, title: str) -> Markup:
    """Only the drawing: colours from the style sheet, ids of its own, as wide as its place."""
    drawing = svg[svg.index("<svg"):]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>chart{number}-", drawing)
    drawing = re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match[0]], drawing)
    drawing = re.sub(r' (width|height)="[\d.]+pt"', "", drawing, count=2)
    label = Markup('<svg role="img" aria-label="{}" ').format(title)
    return Markup(drawing.replace("<svg ", label, 1))  # noqa: S704 - drawn here; no text of the user is in it


def _summary(line: Line, told: Callable[[float | None], str]) -> str:
    if len(line.values) == 1:
        return f"{line.subject} {told(line.values[0])}"
    return f"{line.subject} from {told(line.values[0])} to {told(line.values[-1])}"
