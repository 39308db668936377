"""What is shown of a job as it runs."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from stillhouse.cli.following import JobState, follow, measures, phase_words, remaining, speed, steps
from stillhouse.contract.events import (
    Event,
    Measured,
    Noted,
    PhaseStarted,
    Progressed,
    RecordedEvent,
    StatusChanged,
    UnknownEvent,
)
from stillhouse.contract.status import Phase, Status

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STORY: list[Event | UnknownEvent] = [
    StatusChanged(status=Status.RUNNING, reason="claimed [by] a worker"),
    PhaseStarted(phase=Phase.DISTILLING, total_steps=100),
    Progressed(
        phase=Phase.DISTILLING, step=50, total_steps=100, percent=40.0, samples_per_second=51_234.5, eta_seconds=61.0
    ),
    Measured(
        phase=Phase.DISTILLING, step=50,
        values={"loss": 0.25, "loss.kl": 0.2, "loss.cross_entropy": 0.1, "validation.accuracy": 0.9731},
    ),
    Noted(level="warning", code="odd", message="the [data] is odd"),
    UnknownEvent(type="celebration"),
    PhaseStarted(phase=Phase.EXPORTING),
    StatusChanged(status=Status.SUCCEEDED, reason="finished"),
]


def recorded(events: list[Event | UnknownEvent]) -> list[RecordedEvent]:
    return [
        RecordedEvent(seq=number, at=BEGAN + timedelta(seconds=10 * number), attempt=1, event=event)
        for number, event in enumerate(events, start=1)
    ]


def shown(*, terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=200, color_system=None)
    assert follow(console, recorded(STORY)).status == "succeeded"
    return output.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_happened_stays_on_the_screen(terminal: bool) -> None:
    text = shown(terminal=terminal)
    assert "running: claimed [by] a worker" in text
    assert "the [data] is odd" in text
    assert "succeeded: finished" in text
    assert "  distilling                  50.0 s  loss 0.25  validation accuracy 97.31 %" in text


def test_without_a_terminal_progress_is_plain_lines() -> None:
    text = shown(terminal=False)
    assert "40 %  distilling  step 50/100  51,234 samples/s  about 1 min 1 s left" in text
    assert "\x1b" not in text


def test_a_terminal_shows_a_moving_bar() -> None:
    text = shown(terminal=True)
    assert "51,234 samples/s  about 1 min 1 s left" in text
    assert "loss 0.25 (kl 0.2, cross_entropy 0.1)  validation accuracy 97.31 %" in text
    assert "━" in text


def test_a_state_learns_from_each_event() -> None:
    state = JobState()
    for one in recorded(STORY[:4]):
        state.take(one)
    assert (state.status, state.phase, state.step, state.total_steps, state.percent) == (
        "running", "distilling", 50, 100, 40.0,
    )
    assert (steps(state), speed(state), remaining(state)) == ("step 50/100", "51,234 samples/s", "about 1 min 1 s left")
    assert state.metrics["validation.accuracy"] == 0.9731


def test_a_new_phase_starts_with_nothing_known() -> None:
    state = JobState()
    for one in recorded(STORY[:7]):
        state.take(one)
    assert (steps(state), speed(state), measures(state.metrics)) == ("", "", "")


def test_a_phase_of_a_newer_service_is_shown_as_it_is_named() -> None:
    assert phase_words("soft_labels") == "asking the teacher"
    assert phase_words("quantum_polishing") == "quantum polishing"
    assert phase_words(None) == "waiting for a worker"


def test_scores_without_a_loss() -> None:
    assert measures({"validation.agreement": 0.5}) == "validation agreement 50.00 %"


@pytest.mark.parametrize(
    ("task", "metrics", "told"),
    [
        ("multi_label", {"validation.average_precision": 0.9, "validation.agreement": 0.5},
         "validation mean average precision 90.00 %"),
        ("regression", {"validation.r2": -0.25, "validation.agreement": 0.5}, "validation R² -0.2500"),
        ("regression", {"validation.agreement": 0.5}, "validation agreement 0.5000"),
        ("embedding", {"validation.cosine": 0.9712}, "validation cosine with the teacher 0.9712"),
        ("segmentation", {"validation.agreement": 0.5}, "validation agreement 50.00 %"),
    ],
)
def test_the_score_is_the_tasks(task: str, metrics: dict[str, float], told: str) -> None:
    state = JobState()
    assert state.task == "classification"
    read = Noted(code="data_read", message="read", data={"task": task})
    state.take(recorded([read])[0])
    assert measures(metrics, state.task) == told
