"""What is printed: answers for programs on standard output, words for people on standard error."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stillhouse import wording
from stillhouse.contract.report import Report, Subject
from stillhouse.contract.resources import Attempt, Checkpoint, Job

# A pipe has no width; ids must not be cut for it.
_PIPE_WIDTH = 200

COLOURS = {
    "succeeded": "green", "failed": "red", "cancelled": "yellow", "cancelling": "yellow", "running": "cyan",
    "queued": "blue", "pausing": "yellow", "paused": "yellow",
}
# Broken over two lines so that the table fits on 80 columns.
TITLES = {"teacher": "teacher", "student": "distilled\nstudent", "control": "same student,\nno teacher"}


def answers() -> Console:
    """Standard output: what was asked for."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def people() -> Console:
    """Standard error: progress, hints and errors."""
    return Console(stderr=True, highlight=False)


def tell(markup: str) -> None:
    """A line for people; broken between words on a terminal, never in a log."""
    console = people()
    console.print(markup, soft_wrap=not console.is_terminal)


def print_json(value: BaseModel | Iterable[BaseModel] | Mapping[str, Any]) -> None:
    """A resource, or a list of them, as JSON."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def coloured(status: str) -> str:
    """A status in its colour, as markup."""
    return f"[{COLOURS.get(status, 'white')}]{escape(status)}[/]"


def age(moment: datetime | None) -> str:
    """How long ago: `3 min ago`."""
    if moment is None:
        return wording.MISSING
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def duration(seconds: float | None) -> str:
    """A time to wait: `41 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return wording.MISSING
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plain_table(*columns: str) -> Table:
    """A table without lines, its first column never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0)
    return table


def job_table(jobs: Iterable[Job]) -> Table:
    """Jobs, one a line."""
    table = plain_table("JOB", "STATUS", "PROGRESS", "CREATED", "NAME")
    for job in jobs:
        table.add_row(
            job.id, coloured(str(job.status)), stage(job), age(job.created_at), escape(job.name or wording.MISSING)
        )
    return table


def attempt_table(attempts: Iterable[Attempt]) -> Table:
    """Attempts, one a line."""
    table = plain_table("ATTEMPT", "OUTCOME", "BEGAN", "TOOK", "WORKER", "REASON")
    for attempt in attempts:
        outcome = coloured(attempt.outcome) if attempt.outcome else "goes on"
        table.add_row(
            str(attempt.attempt), outcome, age(attempt.started_at), wording.seconds(attempt.seconds),
            escape(attempt.worker), escape(attempt.reason or wording.MISSING),
        )
    return table


def checkpoint_table(checkpoints: Iterable[Checkpoint]) -> Table:
    """Checkpoints, one a line."""
    table = plain_table("STEP", "PHASE", "WRITTEN", "SIZE", "ATTEMPT", "BEST", "SCORES", "CHECKPOINT")
    for one in checkpoints:
        scores = ", ".join(
            f"{name.removeprefix('validation.')} {'not finite' if value is None else f'{value:.4g}'}"
            for name, value in sorted(one.metrics.items())
        )
        table.add_row(
            str(one.step), escape(str(one.phase)), age(one.created_at), wording.size(one.size), str(one.attempt),
            wording.MISSING if one.best_step is None else str(one.best_step), escape(scores or wording.MISSING),
            one.artifact_id + " (last)" * one.is_last,
        )
    return table


def stage(job: Job) -> str:
    """Where a job is, in a few words."""
    if job.queue is not None:
        return f"number {job.queue.position} in the queue"
    if job.error is not None:
        return escape(job.error.code)
    if job.terminal:
        return wording.MISSING
    silent = ", silent for long" if job.stalled else ""
    return f"{job.progress.percent:.0f} % {job.phase or ''}{silent}".strip()


def report_table(report: Report) -> Table:
    """Teacher, student and control side by side."""
    subjects = [subject for name in TITLES if (subject := report.subject(name))]
    table = Table(title=f"Scores on {report.evaluated_on}", title_justify="left", header_style="bold")
    table.add_column("")
    for subject in subjects:
        table.add_column(TITLES[subject.name], justify="right")
    for name, values in _rows(subjects, report.task):
        if any(value != wording.MISSING for value in values):
            table.add_row(name, *values)
    return table


def _rows(subjects: list[Subject], task: str) -> Iterable[tuple[str, list[str]]]:
    times = [subject.latency for subject in subjects]
    device = next((f"{time.device.upper()} " for time in times if time), "")
    yield "architecture", [escape(subject.architecture) for subject in subjects]
    for measure in wording.measures(task):
        if measure.short:
            yield measure.short, [measure.of(subject.scores) for subject in subjects]
    yield "parameters", [wording.count(subject.num_parameters) for subject in subjects]
    yield "bytes on disk", [wording.count(subject.num_bytes) for subject in subjects]
    yield f"{device}latency p50", [wording.milliseconds(time.p50_ms if time else None) for time in times]
    yield f"{device}latency p95", [wording.milliseconds(time.p95_ms if time else None) for time in times]
