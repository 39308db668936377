"""Stop and resume is bit-identical to never stopping."""

from itertools import count
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stillhouse.contract.events import CheckpointSaved, Measured, Noted, Stopped
from stillhouse.contract.status import Phase, Request
from tests.fixtures.lessons import TRAIN, Lesson, asked_at, curves, everything
from worker.engine import checkpoint as checkpoints
from worker.engine import course
from worker.engine.checkpoint import Keeper
from worker.engine.pipeline import Job, run
from worker.engine.requests import StopRequestedError

# Dropout, batch statistics, a moving average, momentum, clipping: all that has a state or draws.
STUDENT = {"kind": "cnn", "channels": [4, 6], "dropout": 0.3, "hidden": 5}
TRAINING = {
    "epochs": 3, "batch_size": 16, "ema_decay": 0.9, "gradient_clip_norm": 1.0, "warmup_fraction": 0.2,
    "early_stopping": {"patience": 4},
}
AUGMENTATION = {"transforms": [{"kind": "shift", "pixels": 1}, {"kind": "flip"}]}
PLAIN: dict[str, Any] = {"student": STUDENT, "training": TRAINING}
AUGMENTED: dict[str, Any] = {
    "student": STUDENT,
    "training": TRAINING | {"augmentation": AUGMENTATION, "optimizer": {"kind": "sgd", "nesterov": True}},
}
VIEWED = AUGMENTED | {"soft_labels": {"kind": "views", "views": 2}}
TAUGHT_FIRST: dict[str, Any] = {
    "teacher": {
        "kind": "train", "architecture": {"kind": "mlp", "hidden": [8], "dropout": 0.2, "batch_norm": True},
        "training": {"epochs": 2, "batch_size": 16, "augmentation": AUGMENTATION, "optimizer": {"kind": "adam"}},
    },
    "training": {"epochs": 2, "batch_size": 16},
}


@pytest.fixture(autouse=True)
def _measured_every_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that stops fall between two measurements, too."""
    monkeypatch.setattr(course, "NUM_MEASUREMENTS", 4)


def assert_same(job: Job, reference: Job) -> None:
    weights, expected = everything(job), everything(reference)
    assert weights.keys() == expected.keys()
    different = [name for name, tensor in weights.items() if not torch.equal(tensor, expected[name])]
    assert different == []
    assert curves(job) == curves(reference)
    for phase, state in job.keeper.trainings.items():
        other = reference.keeper.trainings[phase]
        assert (state.step, state.selected_step, state.stopped_early) == (
            other.step, other.selected_step, other.stopped_early
        )


@pytest.mark.parametrize(("sections", "every"), [(PLAIN, 2), (AUGMENTED, 7), (VIEWED, 3), (TAUGHT_FIRST, 7)])
def test_a_job_stopped_again_and_again_ends_with_the_same_bits(
    lesson: Lesson, sections: dict[str, Any], every: int
) -> None:
    spec = lesson.spec(**sections)
    reference = lesson.train(spec, "reference")
    job, stops = lesson.train_with_stops(spec, every)
    assert stops > 3
    assert_same(job, reference)


def due_every_fifth_time(keeper: Keeper) -> bool:
    asked = vars(keeper).setdefault("asked", count(1))
    return bool(next(asked) % 5 == 0)


@pytest.mark.parametrize(("sections", "lost_events"), [(PLAIN, 4), (VIEWED, 1), (TAUGHT_FIRST, 4)])
def test_a_job_that_crashes_after_its_checkpoints_ends_with_the_same_bits(
    lesson: Lesson, sections: dict[str, Any], lost_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lesson.spec(**sections)
    reference = lesson.train(spec, "reference")
    monkeypatch.setattr(Keeper, "is_due", due_every_fifth_time)
    assert_same(lesson.train_with_crashes(spec, lost_events), reference)


def test_soft_labels_too_large_for_the_checkpoint_are_made_again_alike(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lesson.spec()
    reference = lesson.train(spec, "reference")
    monkeypatch.setattr(checkpoints, "MAX_SOFT_LABEL_BYTES", 0)
    job, stops = lesson.train_with_stops(spec, 8)
    assert stops > 1
    left = load_file(lesson.folder / "attempt-0" / checkpoints.FILE)
    assert not any(name.startswith("soft_labels") for name in left)
    assert_same(job, reference)


def test_early_stopping_counts_on_after_a_resume(lesson: Lesson) -> None:
    training = {
        "epochs": 30, "batch_size": 24, "early_stopping": {"patience": 3, "min_gain": 0.02},
        "optimizer": {"kind": "adamw", "learning_rate": 0.03}, "schedule": {"kind": "constant"},
    }
    spec = lesson.spec(training=training)
    reference = lesson.train(spec, "reference")
    assert reference.keeper.trainings[Phase.DISTILLING].stopped_early
    job, _ = lesson.train_with_stops(spec, 5)
    assert_same(job, reference)


def test_the_same_spec_gives_the_same_bits_and_another_seed_others(lesson: Lesson) -> None:
    spec = lesson.spec(**PLAIN)
    first, again = lesson.train(spec, "first"), lesson.train(spec, "again")
    assert_same(again, first)
    other = everything(lesson.train(lesson.spec(**PLAIN, seed=1), "other"))
    assert not torch.equal(other["distilling.model.head.weight"], everything(first)["distilling.model.head.weight"])


def test_control_and_student_start_from_the_same_weights_in_the_same_order(lesson: Lesson) -> None:
    # With the teacher's say taken out of the student's objective, the two are one training.
    objective = {"terms": [{"kind": "kl", "weight": 0}, {"kind": "cross_entropy"}]}
    weights = everything(lesson.train(lesson.spec(student=STUDENT, objective=objective)))
    control = {name: tensor for name, tensor in weights.items() if name.startswith("control.")}
    assert control
    for name, tensor in control.items():
        assert torch.equal(tensor, weights[name.replace("control.", "distilling.", 1)]), name


@pytest.mark.parametrize("request_", sorted(set(Request) - {Request.FINISH}))  # which is no stop
@pytest.mark.parametrize("call", [1, 2, 8, 16, 17, 18])
def test_a_request_is_obeyed_before_the_next_step(lesson: Lesson, call: int, request_: Request) -> None:
    scratch = lesson.folder / "scratch"
    scratch.mkdir()
    calls = iter(range(1, 10**9))
    asked: list[int] = []

    def requested() -> Request | None:
        asked.append(next(calls))
        return request_ if asked[-1] >= call else None

    events = list(run(lesson.spec(), lesson.inputs, scratch, checkpoint=None, device="cpu", requested=requested))
    assert len(asked) == call  # it asked no more after the answer
    saved, stopped = events[-2:]
    assert isinstance(saved, CheckpointSaved)
    assert (scratch / saved.file).is_file()
    assert stopped == Stopped(request=request_)
    assert not [path for path in scratch.rglob("*") if path.suffix == ".partial"]


def test_a_damaged_checkpoint_is_told_and_the_job_starts_anew(lesson: Lesson) -> None:
    spec = lesson.spec()
    broken = lesson.folder / "broken.safetensors"
    broken.write_bytes(b"\0" * 100)
    job = lesson.job(spec)
    events = list(job.train(broken))
    assert [event.level for event in events if isinstance(event, Noted) and event.code == "checkpoint_unusable"] == [
        "warning"
    ]
    assert_same(job, lesson.train(spec, "reference"))


def test_a_checkpoint_of_another_version_is_not_trusted(lesson: Lesson) -> None:
    old = lesson.folder / "old.safetensors"
    save_file({"x": torch.zeros(1)}, old, metadata={checkpoints.METADATA_KEY: '{"format": 0}'})
    assert checkpoints.read_snapshot(old) is None


def test_resuming_elsewhere_says_that_bits_may_differ(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lesson.job(lesson.spec(), requested=asked_at(12))
    with pytest.raises(StopRequestedError):
        list(job.train(None))
    kept = job.scratch / checkpoints.FILE

    def notes() -> list[str]:
        return [event.code for event in lesson.job(lesson.spec(), "next").train(kept) if isinstance(event, Noted)]

    assert "resumed" in notes()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert "resumed_elsewhere" in notes()


def test_a_checkpoint_is_whole_or_the_one_before(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lesson.train(lesson.spec())
    job.keeper.save(Phase.CONTROL, 1)
    path = job.scratch / checkpoints.FILE
    before = path.read_bytes()

    def half(tensors: object, path_: Any, metadata: object) -> None:  # noqa: ANN401 - as safetensors has it
        del tensors, metadata
        path_.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(OSError, match="no space"):
        job.keeper.save(Phase.CONTROL, 2)
    assert path.read_bytes() == before


def test_a_checkpoint_tells_the_last_scores_and_holds_the_best_weights(lesson: Lesson) -> None:
    scratch = lesson.folder / "scratch"
    scratch.mkdir()
    events = list(run(lesson.spec(), lesson.inputs, scratch, checkpoint=None, device="cpu", requested=asked_at(13)))
    [saved] = [event for event in events if isinstance(event, CheckpointSaved)]
    scores = [event for event in events if isinstance(event, Measured) and "validation.loss" in event.values][-1]
    assert (saved.phase, saved.metrics, saved.evaluated_step) == (scores.phase, scores.values, scores.step)
    assert saved.step > scores.step > 0
    tensors = load_file(scratch / saved.file)
    best, now = ({name for name in tensors if name.startswith(f"distilling/{kind}.")} for kind in ("selected", "model"))
    assert len(best) == len(now) > 0
    assert saved.best_step is not None


def test_an_ended_training_keeps_no_optimiser_in_the_checkpoint(lesson: Lesson) -> None:
    job = lesson.train(lesson.spec())
    job.keeper.save(Phase.EVALUATING, 0)
    names = load_file(job.scratch / checkpoints.FILE)
    assert any(name.startswith("control/selected.") for name in names)
    assert not any("optimizer" in name or "generator" in name for name in names)


def test_a_resumed_job_with_changed_samples_would_be_noticed(lesson: Lesson) -> None:
    """The comparison itself can fail: other data, other bits."""
    reference = lesson.train(lesson.spec(), "reference")
    lesson.write_blobs(TRAIN, 96, seed=5)
    with pytest.raises(AssertionError):
        assert_same(lesson.train(lesson.spec(), "other"), reference)
