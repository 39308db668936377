"""Asked to finish, the engine trains no further, and exports the best student so far."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.contract.events import Finished, Measured, Stopped, TrainerEvent
from stillhouse.contract.report import Report
from stillhouse.contract.status import Phase, Request
from tests.fixtures.lessons import TRAIN, Lesson, asked_at
from worker.engine.checkpoint import FILE
from worker.engine.pipeline import Job, run_alone
from worker.engine.requests import StopRequestedError

Asked = Callable[[], Request | None]
TAUGHT_FIRST = {"kind": "train", "architecture": {"kind": "mlp", "hidden": [4]}, "training": {"epochs": 3}}


def finish_when(phase: Phase, step: int) -> tuple[Asked, Callable[[TrainerEvent], None]]:
    """What asks to finish once this step of this phase was measured, and what has to see the events."""
    seen: list[bool] = []

    def see(event: TrainerEvent) -> None:
        if isinstance(event, Measured) and event.phase is phase and event.step >= step:
            seen.append(True)

    return (lambda: Request.FINISH if seen else None), see


def finished(lesson: Lesson, phase: Phase, step: int, **sections: Any) -> tuple[Job, Report]:  # noqa: ANN401 - JSON
    """A job that was asked to finish then, and its report."""
    asked, see = finish_when(phase, step)
    job = lesson.job(lesson.spec(**sections), requested=asked)
    last: TrainerEvent | None = None
    for last in run_alone(job, None):
        see(last)
    assert isinstance(last, Finished)
    return job, last.report


def stopped_at(lesson: Lesson, num_requests: int, **sections: Any) -> Path:  # noqa: ANN401 - JSON
    """The checkpoint of a job that was stopped after so many requests."""
    job = lesson.job(lesson.spec(**sections), "first", asked_at(num_requests), labels="shared")
    with pytest.raises(StopRequestedError):
        list(job.train(None))
    return job.scratch / FILE


def test_the_student_is_the_best_until_then_and_the_report_says_so(lesson: Lesson) -> None:
    job, report = finished(lesson, Phase.DISTILLING, 7, training={"epochs": 50, "batch_size": 16})
    state = job.keeper.trainings[Phase.DISTILLING]
    assert report.interrupted is not None
    assert (report.interrupted.step, report.interrupted.without_control) == (state.step, True)
    assert 7 <= state.step < report.interrupted.total_steps
    assert state.evaluated_step == state.step, "the last weights had their chance as well"
    student = report.subject("student")
    assert student is not None
    assert (student.last_step, student.selected_step) == (state.step, state.selected_step)
    assert not student.stopped_early
    assert (report.subject("control"), report.gain) == (None, None)
    assert report.notes[0] == (
        f"Training was cut short after step {state.step} of {report.interrupted.total_steps}; the student is "
        "the best until then. The control was left out."
    )
    assert report.parity


@pytest.mark.usefixtures("unexported")
def test_before_the_first_evaluation_the_last_weights_are_the_best(lesson: Lesson) -> None:
    job, report = finished(
        lesson, Phase.DISTILLING, 1, training={"epochs": 50, "batch_size": 16, "evaluate_every": 40}, control=False
    )
    state = job.keeper.trainings[Phase.DISTILLING]
    assert report.interrupted is not None
    assert 0 < state.step < 40
    assert state.selected_step == state.step
    assert all(torch.equal(state.selected[name], tensor) for name, tensor in state.model.state_dict().items())


@pytest.mark.usefixtures("unexported")
def test_a_control_that_is_not_over_is_left_out(lesson: Lesson) -> None:
    job, report = finished(lesson, Phase.CONTROL, 2, training={"epochs": 4, "batch_size": 16})
    assert report.interrupted is not None
    assert report.interrupted.step == report.interrupted.total_steps
    assert report.interrupted.without_control
    assert Phase.CONTROL not in job.keeper.trainings
    assert report.notes[0].startswith("The job was cut short after the student was trained.")


@pytest.mark.usefixtures("unexported")
def test_what_is_over_is_no_interruption(lesson: Lesson) -> None:
    job, report = finished(lesson, Phase.DISTILLING, 10**6)
    assert (report.interrupted, job.interrupted) == (None, None)


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, Phase.TEACHER])
def test_without_a_student_there_is_nothing_to_finish(lesson: Lesson, phase: Phase) -> None:
    asked, see = finish_when(phase, 2)
    sections = {"teacher": TAUGHT_FIRST} if phase is Phase.TEACHER else {}
    at_once = phase is Phase.PREFLIGHT
    job = lesson.job(lesson.spec(**sections), requested=(lambda: Request.FINISH) if at_once else asked)
    last: TrainerEvent | None = None
    for last in run_alone(job, None):
        see(last)
    assert last == Stopped(request=Request.FINISH)


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("labels", ["shared", "gone"])  # soft labels that are gone are made again, not stopped at
@pytest.mark.parametrize("augmented", [False, True])
def test_a_checkpoint_is_finished_without_another_step(
    lesson: Lesson, augmented: bool, labels: str
) -> None:
    training: dict[str, Any] = {"epochs": 50, "batch_size": 16}
    if augmented:
        training["augmentation"] = {"transforms": [{"kind": "flip"}]}
    sections: dict[str, Any] = {"training": training, "soft_labels": {"kind": "views", "views": 1}}
    checkpoint = stopped_at(lesson, 20, **sections)
    job = lesson.job(lesson.spec(**sections), "second", lambda: Request.FINISH, labels=labels)
    events = list(run_alone(job, checkpoint))
    assert isinstance(events[-1], Finished)
    assert events[-1].report.interrupted is not None
    assert events[-1].report.interrupted.step == job.snapshot.facts["trainings"]["distilling"]["step"]


def test_a_checkpoint_of_the_teacher_alone_is_nothing_to_keep(lesson: Lesson) -> None:
    checkpoint = stopped_at(lesson, 4, teacher=TAUGHT_FIRST)
    job = lesson.job(lesson.spec(teacher=TAUGHT_FIRST), "second", lambda: Request.FINISH)
    assert list(run_alone(job, checkpoint))[-1] == Stopped(request=Request.FINISH)


def test_a_job_that_is_finished_is_still_stopped(lesson: Lesson) -> None:
    """Asked to finish, and then to let go while it evaluates: what comes next finishes from the checkpoint."""
    asked: list[Request | None] = [None]
    spec = lesson.spec(training={"epochs": 50, "batch_size": 16})
    job = lesson.job(spec, "first", lambda: asked[0], labels="shared")
    for event in run_alone(job, None):
        if isinstance(event, Measured) and event.step > 3 and asked[0] is None:
            asked[0] = Request.FINISH
        if job.interrupted is not None:
            asked[0] = Request.DRAIN
    assert event == Stopped(request=Request.DRAIN)
    again = lesson.job(spec, "second", lambda: Request.FINISH, labels="shared")
    last = list(run_alone(again, job.scratch / FILE))[-1]
    assert isinstance(last, Finished)
    assert last.report.interrupted == job.interrupted
    assert TRAIN in lesson.inputs
