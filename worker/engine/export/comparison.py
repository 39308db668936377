"""The comparison of the models as rows of text, for the page and the card."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stillhouse import wording
from stillhouse.contract.report import Latency, Report, Scores, Subject

Cell = Callable[[Subject], str]


@dataclass(frozen=True)
class Row:
    """A line of the comparison: one cell for each model."""

    title: str
    cells: list[str]


def compare(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Headed groups of rows, one cell for each model; rows about which no model has anything to say are left out."""
    for title, rows in (
        (f"On the {report.evaluated_on} split", _quality_cells()),
        ("Selected and last step", _step_cells(report)),
        ("Cost", _cost_cells()),
    ):
        told = [Row(name, [cell(subject) for subject in report.subjects]) for name, cell in rows]
        kept = [row for row in told if set(row.cells) != {wording.MISSING}]
        if kept:
            yield title, kept


def _quality_cells() -> Iterator[tuple[str, Cell]]:
    yield "Accuracy", lambda subject: wording.percent(subject.scores.accuracy)
    yield "Wrong answers", lambda subject: wording.count(subject.scores.num_errors)
    yield "Precision, macro", lambda subject: wording.percent(subject.scores.precision_macro)
    yield "Recall, macro", lambda subject: wording.percent(subject.scores.recall_macro)
    yield "F1, macro", lambda subject: wording.percent(subject.scores.f1_macro)
    yield "Calibration error", lambda subject: wording.percent(subject.scores.calibration_error)
    yield "Cross-entropy, nats", lambda subject: wording.decimal(subject.scores.cross_entropy)
    yield "Agreement with the teacher", lambda subject: wording.percent(subject.scores.agreement)
    yield "KL from the teacher, nats", lambda subject: wording.decimal(subject.scores.kl_from_teacher)


def _step_cells(report: Report) -> Iterator[tuple[str, Cell]]:
    metric = report.selection.metric.rpartition(".")[2]
    yield "Selected step", lambda subject: wording.count(subject.selected_step)
    yield "Last step", lambda subject: wording.count(subject.last_step) + (" (early)" if subject.stopped_early else "")
    yield f"Validation {metric}, selected", lambda subject: _share_of(subject.validation_scores, metric)
    yield f"{report.evaluated_on.capitalize()} accuracy, selected", lambda subject: (
        wording.percent(subject.scores.accuracy) if subject.final_scores else wording.MISSING
    )
    yield f"{report.evaluated_on.capitalize()} accuracy, last step", lambda subject: (
        _share_of(subject.final_scores, "accuracy")
    )


def _cost_cells() -> Iterator[tuple[str, Cell]]:
    yield "Parameters", lambda subject: wording.count(subject.num_parameters)
    yield "Weights as safetensors", lambda subject: wording.size(subject.num_bytes)
    yield "Latency, median", lambda subject: _milliseconds(subject.latency, "p50_ms")
    yield "Latency, 95th percentile", lambda subject: _milliseconds(subject.latency, "p95_ms")


def _milliseconds(latency: Latency | None, quantile: str) -> str:
    return wording.milliseconds(getattr(latency, quantile, None))


def _share_of(scores: Scores | None, metric: str) -> str:
    value = getattr(scores, metric, None) if scores else None
    if metric in {"accuracy", "agreement"}:
        return wording.percent(value)
    return wording.decimal(value)
