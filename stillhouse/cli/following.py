"""Show a job as it runs: a live bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.text import Text

from stillhouse import wording
from stillhouse.cli.output import coloured, duration
from stillhouse.contract.events import Measured, Noted, PhaseStarted, Progressed, RecordedEvent, StatusChanged
from stillhouse.contract.status import Phase, Status

# Seconds between two plain lines of progress.
LINE_SECONDS = 5.0

_PHASE_WORDS = {
    Phase.STAGING: "fetching inputs", Phase.PREFLIGHT: "checking everything", Phase.TEACHER: "training the teacher",
    Phase.SOFT_LABELS: "asking the teacher", Phase.DISTILLING: "distilling",
    Phase.CONTROL: "training without teacher", Phase.EVALUATING: "evaluating", Phase.EXPORTING: "exporting",
}


@dataclass
class JobState:
    """What the events so far tell of a job."""

    status: str = Status.QUEUED.value
    phase: str | None = None
    phase_began: datetime | None = None
    step: int | None = None
    total_steps: int | None = None
    percent: float = 0.0
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    task: str = "classification"

    def take(self, recorded: RecordedEvent) -> None:
        """Learn from the next event; unknown ones teach nothing."""
        event = recorded.event
        if isinstance(event, StatusChanged):
            self.status, self.phase = str(event.status), None
        elif isinstance(event, PhaseStarted):
            self._begin(str(event.phase), recorded.at, event.total_steps)
        elif isinstance(event, Progressed):
            self._move(event)
        elif isinstance(event, Measured):
            self.metrics.update(event.values)
        elif isinstance(event, Noted) and event.code == "data_read":
            self.task = str(event.data.get("task", self.task))

    def _begin(self, phase: str, at: datetime, total_steps: int | None) -> None:
        self.phase, self.phase_began = phase, at
        self.step, self.total_steps = None, total_steps
        self.samples_per_second = None
        self.metrics = {}

    def _move(self, event: Progressed) -> None:
        self.step, self.total_steps = event.step, event.total_steps
        self.percent = event.percent
        self.samples_per_second, self.eta_seconds = event.samples_per_second, event.eta_seconds


def follow(console: Console, events: Iterable[RecordedEvent]) -> JobState:
    """Show events until they end, and return the last state."""
    state = JobState()
    with _view(console) as show:
        for recorded in events:
            for line in lines(state, recorded):
                console.print(line, soft_wrap=not console.is_terminal)
            state.take(recorded)
            show(state, recorded)
    return state


def lines(state: JobState, recorded: RecordedEvent) -> Iterator[str]:
    """What stays on the screen of an event, as markup; `state` is that before it."""
    event = recorded.event
    if isinstance(event, PhaseStarted | StatusChanged) and state.phase and state.phase_began:
        seconds = max(0.0, (recorded.at - state.phase_began).total_seconds())
        reached = measures(state.metrics, state.task, with_terms=False)
        yield f"  {escape(phase_words(state.phase)):<24} {wording.seconds(seconds):>9}  {reached}".rstrip()
    if isinstance(event, StatusChanged):
        yield f"{coloured(str(event.status))}: {escape(event.reason)}"
    elif isinstance(event, Noted):
        colour = "yellow" if event.level == "warning" else "dim"
        yield f"  [{colour}]{escape(event.message)}[/]"


def phase_words(phase: str | None) -> str:
    """A phase as people say it; one of a newer service as it is named."""
    if phase is None:
        return "waiting for a worker"
    return _PHASE_WORDS[Phase(phase)] if phase in set(Phase) else phase.replace("_", " ")


def measures(metrics: Mapping[str, float], task: str = "classification", *, with_terms: bool = True) -> str:
    """The loss and its terms, then the task's own score on validation, or the agreement, in one line."""
    parts = []
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.4g}" + (_terms(metrics) if with_terms else ""))
    for score in (wording.quality(task), wording.measure(task, "agreement")):
        if score and f"validation.{score.field}" in metrics:
            name = score.name if score.field != "agreement" else score.field
            parts.append(f"validation {name} {score.told(metrics[f'validation.{score.field}'])}")
            break
    return "  ".join(parts)


def _terms(metrics: Mapping[str, float]) -> str:
    terms = [f"{name.removeprefix('loss.')} {value:.4g}" for name, value in metrics.items() if name.startswith("loss.")]
    return f" ({', '.join(terms)})" if terms else ""


def steps(state: JobState) -> str:
    """`1200/2800`, or nothing where the phase counts none."""
    if state.step is None:
        return ""
    return f"step {state.step:,}/{state.total_steps:,}" if state.total_steps else f"step {state.step:,}"


def speed(state: JobState) -> str:
    """`51,200 samples/s`, or nothing while it is not known."""
    return f"{state.samples_per_second:,.0f} samples/s" if state.samples_per_second else ""


def remaining(state: JobState) -> str:
    """`about 41 s left`, or nothing while there is no honest estimate."""
    return f"about {duration(state.eta_seconds)} left" if state.eta_seconds is not None else ""


Show = Callable[[JobState, RecordedEvent], None]


def _view(console: Console) -> AbstractContextManager[Show]:
    return _live_view(console) if console.is_terminal else nullcontext(_line_view(console))


def _line_view(console: Console) -> Show:
    """A line of progress now and then, for logs."""
    shown_at: datetime | None = None

    def show(state: JobState, recorded: RecordedEvent) -> None:
        nonlocal shown_at
        if not isinstance(recorded.event, Progressed):
            return
        if shown_at is None or (recorded.at - shown_at).total_seconds() >= LINE_SECONDS:
            shown_at = recorded.at
            parts = [
                f"{state.percent:.0f} %", phase_words(state.phase), steps(state), speed(state), remaining(state),
                measures(state.metrics, state.task),
            ]
            console.print("  ".join(part for part in parts if part), markup=False, soft_wrap=True)

    return show


@contextmanager
def _live_view(console: Console) -> Iterator[Show]:
    """A bar that moves, with the loss and the scores below it."""
    columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(), TaskProgressColumn())
    progress = Progress(*columns, console=console)
    task = progress.add_task(phase_words(None), total=100.0)
    below = Text(no_wrap=True, overflow="ellipsis")
    with Live(Group(progress, below), console=console, transient=True, refresh_per_second=8):

        def show(state: JobState, _recorded: RecordedEvent) -> None:
            description = phase_words(state.phase) if state.status == Status.RUNNING else state.status
            progress.update(task, description=escape(description), completed=state.percent)
            details = "  ".join(part for part in (steps(state), speed(state), remaining(state)) if part)
            below.plain = f"  {details}\n  {measures(state.metrics, state.task)}"

        yield show
