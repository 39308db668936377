"""The report as one self-contained page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stillhouse import wording
from stillhouse.contract.report import ClassScore, Report, Scores, Subject, TargetScore
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
    name: getattr(wording, name)
    for name in ("percent", "count", "decimal", "four", "size", "milliseconds", "seconds", "times")
} | {"typeset": typeset}

@dataclass(frozen=True)
class Tile:
    """A big number. `share` is the student's part of the teacher's, 0 to 1, drawn as a bar; None where nobody knows."""

    title: str
    value: str
    beside: str
    share: float | None


@dataclass(frozen=True)
class ClassRow:
    """A class or a label: the student's scores, and the F1 of each other model."""

    student: ClassScore
    others: list[float]


@dataclass(frozen=True)
class TargetRow:
    """A target: the student's scores, and the R² of each other model."""

    student: TargetScore
    others: list[float | None]


def render_html(report: Report) -> str:
    """The page: no script, no external resource; strings of the user are escaped."""
    charts = draw_charts(report)
    drawn = {subject for chart in charts for subject in chart.subjects}
    return _PAGES.get_template("report.html.j2").render(
        report=report,
        verdict=wording.verdict(report),
        gain=wording.gain_sentence(report),
        num_evaluated=wording.num_evaluated(report),
        selected_by=_selected_by(report),
        num_labelled=wording.num_labelled(report),
        outputs=wording.outputs(report),
        tiles=list(_tiles(report)),
        groups=list(compare(report)),
        charts=charts,
        drawn=[subject.name for subject in report.subjects if subject.name in drawn],
        class_rows=_class_rows(report),
        has_precisions=any(score.average_precision is not None for score in _student_scores(report).per_class),
        target_rows=_target_rows(report),
        num_classes=len(report.label_names),
        has_confusion=len(report.label_names) <= MAX_CONFUSION_CLASSES,
        student=report.subject("student"),
        others=[subject.name for subject in report.subjects if subject.name != "student"],
    )


def _tiles(report: Report) -> Iterator[Tile]:
    teacher, student = report.subject("teacher"), report.subject("student")
    if teacher is None or student is None:
        return
    yield _quality_tile(report.task, teacher.scores, student.scores)
    yield Tile(
        "Parameters", wording.count(student.num_parameters), _beside(wording.count(teacher.num_parameters)),
        1 / report.parameter_ratio if report.parameter_ratio else None,
    )
    yield Tile(
        "Weights on disk", wording.size(student.num_bytes), _beside(wording.size(teacher.num_bytes)),
        1 / report.size_ratio if report.size_ratio else None,
    )
    if student.latency and teacher.latency and report.speed_ratio:
        yield Tile(
            "CPU latency", wording.milliseconds(student.latency.p50_ms),
            _beside(wording.milliseconds(teacher.latency.p50_ms)), 1 / report.speed_ratio,
        )


def _quality_tile(task: str, teacher: Scores, student: Scores) -> Tile:
    quality, agreement = wording.quality(task), wording.measure(task, "agreement")
    own, taught = getattr(student, quality.field), getattr(teacher, quality.field)
    assert agreement is not None  # noqa: S101 - every task has it
    if quality.field == "cosine" and own is not None:
        return Tile(quality.title, quality.told(own), f"{wording.percent(student.agreement, 1)} same neighbours", own)
    if own is not None and taught:
        share = own / taught if taught > 0 else None
        return Tile(quality.title, quality.told(own), _beside(quality.told(taught)), share)
    return Tile(agreement.title, agreement.of(student), "", student.agreement)


def _selected_by(report: Report) -> str:
    metric = report.selection.metric.rpartition(".")[2]
    measure = wording.measure(report.task, metric)
    return measure.name if measure else metric


def _beside(teacher: str) -> str:
    return "teacher's not known" if teacher == wording.MISSING else f"teacher {teacher}"


def _student_scores(report: Report) -> Scores:
    student = report.subject("student")
    return student.scores if student else Scores()


def _class_rows(report: Report) -> list[ClassRow]:
    """Every class in its order, or the weakest ones where there are many."""
    others = [_f1_by_label(subject) for subject in report.subjects if subject.name != "student"]
    rows = [
        ClassRow(score, [by_label.get(score.label, float("nan")) for by_label in others])
        for score in _student_scores(report).per_class
    ]
    return rows if len(rows) <= MAX_LISTED_CLASSES else _weakest(rows)


def _f1_by_label(subject: Subject) -> dict[str, float]:
    return {score.label: score.f1 for score in subject.scores.per_class}


def _target_rows(report: Report) -> list[TargetRow]:
    """Every target in its order."""
    others = [
        {score.target: score.r2 for score in subject.scores.per_target}
        for subject in report.subjects if subject.name != "student"
    ]
    return [
        TargetRow(score, [by_target.get(score.target) for by_target in others])
        for score in _student_scores(report).per_target
    ]


def _weakest(rows: Sequence[ClassRow]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: row.student.f1)[:MAX_LISTED_CLASSES]
