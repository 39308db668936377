"""The report as one self-contained page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stillhouse import wording
from stillhouse.contract.report import ClassScore, Report, Scores, Subject
from worker.engine.export.comparison import compare
from worker.engine.export.curves import draw_charts

MAX_CONFUSION_CLASSES: Final = 20
MAX_LISTED_CLASSES: Final = 200



def typeset(text: str) -> str:
    """Our own sentences with the characters that a printed page has."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)
_PAGES.filters |= {
    name: getattr(wording, name) for name in ("percent", "count", "decimal", "size", "milliseconds", "seconds", "times")
} | {"typeset": typeset}

@dataclass(frozen=True)
class Tile:
    """A big number. `share` is the student's part of the teacher's, 0 to 1, drawn as a bar."""

    title: str
    value: str
    beside: str
    share: float


@dataclass(frozen=True)
class ClassRow:
    """A class: the student's scores, and the F1 of each other model."""

    student: ClassScore
    others: list[float]


def render_html(report: Report) -> str:
    """The page: no script, no external resource; strings of the user are escaped."""
    charts = draw_charts(report)
    drawn = {subject for chart in charts for subject in chart.subjects}
    return _PAGES.get_template("report.html.j2").render(
        report=report,
        verdict=wording.verdict(report),
        gain=wording.gain_sentence(report),
        num_evaluated=wording.num_evaluated(report),
        tiles=list(_tiles(report)),
        groups=list(compare(report)),
        charts=charts,
        drawn=[subject.name for subject in report.subjects if subject.name in drawn],
        class_rows=_class_rows(report),
        num_classes=len(report.label_names),
        has_confusion=len(report.label_names) <= MAX_CONFUSION_CLASSES,
        student=report.subject("student"),
        others=[subject.name for subject in report.subjects if subject.name != "student"],
    )


def _tiles(report: Report) -> Iterator[Tile]:
    teacher, student = report.subject("teacher"), report.subject("student")
    if teacher is None or student is None:
        return
    yield _quality_tile(teacher.scores, student.scores)
    yield Tile(
        "Parameters", wording.count(student.num_parameters), f"teacher {wording.count(teacher.num_parameters)}",
        1 / report.parameter_ratio if report.parameter_ratio else 0.0,
    )
    yield Tile(
        "Weights on disk", wording.size(student.num_bytes), f"teacher {wording.size(teacher.num_bytes)}",
        1 / report.size_ratio if report.size_ratio else 0.0,
    )
    if student.latency and teacher.latency and report.speed_ratio:
        yield Tile(
            "CPU latency", wording.milliseconds(student.latency.p50_ms),
            f"teacher {wording.milliseconds(teacher.latency.p50_ms)}", 1 / report.speed_ratio,
        )


def _quality_tile(teacher: Scores, student: Scores) -> Tile:
    if student.accuracy is not None and teacher.accuracy:
        return Tile(
            "Accuracy", wording.percent(student.accuracy), f"teacher {wording.percent(teacher.accuracy)}",
            student.accuracy / teacher.accuracy,
        )
    return Tile("Agreement with the teacher", wording.percent(student.agreement), "", student.agreement or 0.0)


def _class_rows(report: Report) -> list[ClassRow]:
    """Every class in its order, or the weakest ones where there are many."""
    student = report.subject("student")
    if student is None:
        return []
    others = [_f1_by_label(subject) for subject in report.subjects if subject.name != "student"]
    rows = [
        ClassRow(score, [by_label.get(score.label, float("nan")) for by_label in others])
        for score in student.scores.per_class
    ]
    return rows if len(rows) <= MAX_LISTED_CLASSES else _weakest(rows)


def _f1_by_label(subject: Subject) -> dict[str, float]:
    return {score.label: score.f1 for score in subject.scores.per_class}


def _weakest(rows: Sequence[ClassRow]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: row.student.f1)[:MAX_LISTED_CLASSES]
