"""The comparison of the models as rows of text, for the page and the card."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stillhouse import wording
from stillhouse.contract.report import Latency, Report, Subject

Cell = Callable[[Subject], str]


@dataclass(frozen=True)
class Row:
    """A line of the comparison: one cell for each model."""

    title: str
    cells: list[str]


def compare(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Headed groups of rows, one cell for each model; rows about which no model has anything to say are left out."""
    for title, rows in (
        (f"On the {report.evaluated_on} split", _quality_cells(report.task)),
        ("Selected and last step", _step_cells(report)),
        ("Cost", _cost_cells()),
    ):
        told = [Row(name, [cell(subject) for subject in report.subjects]) for name, cell in rows]
        kept = [row for row in told if set(row.cells) != {wording.MISSING}]
        if kept:
            yield title, kept


def _quality_cells(task: str) -> Iterator[tuple[str, Cell]]:
    for measure in wording.measures(task):
        yield measure.title, _cell(measure)


def _cell(measure: wording.Measure) -> Cell:
    return lambda subject: measure.of(subject.scores)


def _step_cells(report: Report) -> Iterator[tuple[str, Cell]]:
    metric = wording.measure(report.task, report.selection.metric.rpartition(".")[2])
    quality, split = wording.quality(report.task), report.evaluated_on.capitalize()
    yield "Selected step", lambda subject: wording.count(subject.selected_step)
    yield "Last step", lambda subject: wording.count(subject.last_step) + (" (early)" if subject.stopped_early else "")
    if metric:
        yield f"Validation {metric.name}, selected", lambda subject: metric.of(subject.validation_scores)
    yield f"{split} {quality.name}, selected", lambda subject: (
        quality.of(subject.scores) if subject.final_scores else wording.MISSING
    )
    yield f"{split} {quality.name}, last step", lambda subject: quality.of(subject.final_scores)


def _cost_cells() -> Iterator[tuple[str, Cell]]:
    yield "Parameters", lambda subject: wording.count(subject.num_parameters)
    yield "Weights as safetensors", lambda subject: wording.size(subject.num_bytes)
    yield "Latency, median", lambda subject: _milliseconds(subject.latency, "p50_ms")
    yield "Latency, 95th percentile", lambda subject: _milliseconds(subject.latency, "p95_ms")


def _milliseconds(latency: Latency | None, quantile: str) -> str:
    return wording.milliseconds(getattr(latency, quantile, None))
