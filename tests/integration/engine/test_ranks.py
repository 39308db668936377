"""Several processes that train one model, started by torchrun's elastic launcher; gloo stands for NCCL."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from stillhouse.contract.events import CheckpointSaved, Failed, Finished, Noted, Stopped, TrainerEvent
from stillhouse.contract.failures import DeviceUnavailableError
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase, Request
from tests.fixtures.lessons import Lesson, asked_at, never
from worker.engine.launch import RankOrder
from worker.engine.pipeline import run

ROOT = Path(__file__).parents[3]
EXACT: dict[str, Any] = {
    "training": {
        "epochs": 2, "batch_size": 16, "precision": "float64", "gradient_clip_norm": 1.0,
        "optimizer": {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    },
    "objective": {"terms": [{"kind": "kl", "temperature": 4.0}, {"kind": "cross_entropy", "weight": 0.5}]},
    "control": False,
}


def train_on_two(lesson: Lesson, spec: JobSpec) -> dict[str, torch.Tensor]:
    order = RankOrder(
        spec=spec, inputs=lesson.inputs, scratch=lesson.folder, checkpoint=None, devices=["cpu", "cpu"], threads=1
    )
    path = lesson.folder / "order.json"
    path.write_text(order.model_dump_json(exclude_unset=True))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module",
        "tests.fixtures.rank_probe", str(path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (load_file(lesson.folder / rank / "last.safetensors") for rank in "01")
    assert all(torch.equal(first[name], second[name]) for name in first)
    return first


@pytest.mark.parametrize("student", [
    pytest.param({"kind": "mlp", "hidden": [6]}, marks=pytest.mark.slow),
    {"kind": "cnn", "channels": [4], "batch_norm": False},
])
def test_two_processes_train_as_one(lesson: Lesson, student: dict[str, Any]) -> None:
    spec = lesson.spec(**EXACT, student=student)
    alone = lesson.train(spec).keeper.trainings[Phase.DISTILLING].model.state_dict()
    together = train_on_two(lesson, spec)
    assert together.keys() == alone.keys()
    for name, weights in together.items():
        assert weights.dtype == torch.float64
        assert torch.allclose(weights, alone[name], rtol=0, atol=1e-9), name


def on_two(lesson: Lesson, spec: JobSpec, requested: Any = never) -> tuple[Path, Any]:  # noqa: ANN401 - a callable
    scratch = lesson.folder / "together"
    scratch.mkdir()
    return scratch, run(spec, lesson.inputs, scratch, checkpoint=None, device="cpu,cpu", requested=requested)


def test_no_other_machine_reaches_the_ranks_and_a_killed_one_takes_the_job_back_to_its_last_checkpoint(
    lesson: Lesson
) -> None:
    flip = {"transforms": [{"kind": "flip"}]}
    training = {"epochs": 40, "batch_size": 16, "checkpoint_seconds": 1.0, "augmentation": flip}
    spec = lesson.spec(training=training, control=False, student={"kind": "cnn", "channels": [4], "batch_norm": False})
    _, events = on_two(lesson, spec)
    seen: list[TrainerEvent] = []
    for event in events:
        if isinstance(event, CheckpointSaved) and not any(isinstance(before, CheckpointSaved) for before in seen):
            assert listening_at(launched()) == {"127.0.0.1"}
            launched()[-1].send_signal(signal.SIGKILL)
        seen.append(event)
    assert isinstance(seen[-1], Finished), seen[-1]
    assert "resumed" in [event.code for event in seen if isinstance(event, Noted)]
    student = seen[-1].report.subject("student")
    assert student is not None
    assert student.last_step == 40 * 4


def launched() -> list[psutil.Process]:
    """The launcher, and the two ranks below it."""
    found = [
        process for process in psutil.Process().children(recursive=True) if "worker.engine.rank" in process.cmdline()
    ]
    assert ["worker.engine.agent" in process.cmdline() for process in found] == [True, False, False]
    return found


def listening_at(processes: list[psutil.Process]) -> set[str]:
    return {
        connection.laddr.ip for process in processes for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
def test_what_is_looked_at_by_each_device_alone_is_told(lesson: Lesson) -> None:
    spec = lesson.spec(student={"kind": "cnn", "channels": [4]}, training={"epochs": 1, "batch_size": 16})
    _, events = on_two(lesson, spec, asked_at(1, Request.DRAIN))
    seen = list(events)
    (note,) = [event for event in seen if isinstance(event, Noted) and event.code == "ranks"]
    assert note.data["per_device"] == ["batch normalisation"]
    assert isinstance(seen[-1], Stopped)


@pytest.mark.slow
def test_mistakes_are_told_as_by_one_process(lesson: Lesson) -> None:
    _, events = on_two(lesson, lesson.spec(training={"epochs": 1, "batch_size": 15}))
    last = list(events)[-1]
    assert isinstance(last, Failed)
    assert (last.failure.code, last.failure.param) == ("invalid_spec", "/training/batch_size")


def test_a_device_that_is_not_there_is_told_before_any_process_starts(lesson: Lesson) -> None:
    events = run(
        lesson.spec(), lesson.inputs, lesson.folder, checkpoint=None, device="cpu,cuda:7", requested=never
    )
    with pytest.raises(DeviceUnavailableError, match="cuda:7"):
        next(events)


def test_alone_nothing_is_wrapped(lesson: Lesson) -> None:
    state = lesson.train(lesson.spec()).keeper.trainings[Phase.DISTILLING]
    assert state.answer is state.model
