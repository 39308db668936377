"""A whole job on a CUDA device, and one that was stopped and went on. Run with `-m gpu` where there is one."""

from pathlib import Path

import pytest
import torch

from stillhouse.contract.events import CheckpointSaved, Finished, Planned, SoftLabelsSaved, Stopped, TrainerEvent
from stillhouse.contract.spec import JobSpec
from tests.fixtures.lessons import TEST, TRAIN, Lesson, asked_at, never
from worker.engine import answers, pipeline

AUGMENTED: dict[str, object] = {"augmentation": {"transforms": [{"kind": "shift", "pixels": 1}]}}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    lesson = Lesson(tmp_path)
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    lesson.write_teacher()
    return lesson


def run(
    lesson: Lesson, spec: JobSpec, *, name: str, checkpoint: Path | None = None, stop_at: int | None = None
) -> list[TrainerEvent]:
    scratch = lesson.folder / name
    scratch.mkdir()
    requested = asked_at(stop_at) if stop_at else never
    device = "cuda:0"
    return list(pipeline.run(spec, lesson.inputs, scratch, checkpoint=checkpoint, device=device, requested=requested))


@pytest.mark.parametrize(
    "training",
    [{}, {"ema_decay": 0.9}, AUGMENTED],
    ids=["plain", "average", "augmented"],
)
def test_a_job_runs_to_its_end_on_cuda(lesson: Lesson, training: dict[str, object]) -> None:
    last = run(lesson, lesson.spec(training=training), name="whole")[-1]
    assert isinstance(last, Finished)
    assert last.report.environment.device.startswith("cuda")


@pytest.mark.parametrize("max_ready_bytes", [2**31, 0], ids=["ready", "mapped"])
def test_stored_views_train_on_cuda(lesson: Lesson, max_ready_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_READY_BYTES", max_ready_bytes)
    spec = lesson.spec(training=AUGMENTED, soft_labels={"kind": "views", "views": 2})
    events = run(lesson, spec, name="views")
    assert {event.view for event in events if isinstance(event, SoftLabelsSaved)} == {0, 1}
    assert isinstance(events[-1], Finished)


def test_a_stopped_job_goes_on_on_cuda(lesson: Lesson) -> None:
    spec = lesson.spec(student={"kind": "mlp", "hidden": [6], "dropout": 0.2})
    events = run(lesson, spec, name="first", stop_at=6)
    assert isinstance(events[-1], Stopped)
    saved = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    checkpoint = lesson.folder / "first" / saved.file
    assert isinstance(run(lesson, spec, name="second", checkpoint=checkpoint)[-1], Finished)


def test_a_plan_is_made_on_cuda(lesson: Lesson) -> None:
    *_, last = pipeline.plan(lesson.spec(), lesson.inputs, lesson.folder, device="cuda:0", requested=never)
    assert isinstance(last, Planned)
    memory = last.plan.memory
    assert memory.available is not None
    assert memory.device_total == torch.cuda.get_device_properties(0).total_memory
    assert memory.available < memory.device_total
