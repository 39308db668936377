"""Jobs on several devices with the real engine, through API, queue and one worker with two slots."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from stillhouse import Client
from stillhouse.client import JobHandle, StillhouseApiError
from stillhouse.contract.events import CheckpointSaved, Noted, Progressed
from stillhouse.contract.status import Phase
from stillhouse.local import LocalService
from tests.e2e.conftest import Running
from tests.fixtures.waiting import wait_until

# Two processes wait for each other at every step, and much longer where something else has the cores.
pytestmark = pytest.mark.timeout(600)

TWO_SLOTS = {
    "STILLHOUSE_SLOTS": "2", "STILLHOUSE_LEASE_SECONDS": "10", "STILLHOUSE_REAP_SECONDS": "0.5",
    "STILLHOUSE_RING_AGAIN_SECONDS": "1",
}


@pytest.fixture(scope="module")
def service(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    with running(tmp_path_factory.mktemp("home"), environment=TWO_SLOTS) as local:
        yield local


@pytest.fixture(scope="module")
def client(service: LocalService) -> Iterator[Client]:
    with Client(service.url, service.key) as client:
        yield client


@pytest.fixture(scope="module")
def spec(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job of some seconds."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2048, 32)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(path, inputs=inputs, labels=np.argmax(inputs[:, :4], axis=1))
    mlp = {"kind": "mlp", "hidden": [16]}
    return {
        "teacher": {"kind": "train", "architecture": mlp, "training": {"epochs": 2}}, "student": mlp,
        "data": {"kind": "npz", "train": {"artifact": client.upload(path).id}},
        "training": {"epochs": 80, "batch_size": 64, "evaluate_every": 10, "checkpoint_seconds": 1}, "control": False,
        "devices": 2,
    }


def ranks() -> list[psutil.Process]:
    """The processes that train together."""
    return [process for process in running_below(psutil.Process()) if is_rank(process)]


def running_below(parent: psutil.Process) -> list[psutil.Process]:
    return [process for process in parent.children(recursive=True) if process.status() != psutil.STATUS_ZOMBIE]


def is_rank(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "worker.engine.rank" in words and "worker.engine.agent" not in words


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def in_mid_training(job: JobHandle) -> list[psutil.Process]:
    """The job's processes, once a checkpoint of the student is stored and some steps more are done."""
    saved_at: int | None = None
    for recorded in job.watch():
        event = recorded.event
        if isinstance(event, CheckpointSaved) and event.phase is Phase.DISTILLING:
            saved_at = event.step
        if isinstance(event, Progressed) and saved_at is not None and event.step > saved_at:
            found = ranks()
            assert len(found) == 2
            return found
    pytest.fail("the job ended before it could be disturbed; make it longer")


def weights(job: JobHandle) -> str:
    assert job.wait().has_succeeded, job.logs()
    return next(file.sha256 for file in job.refresh().files if file.role == "safetensors")


@pytest.fixture(scope="module")
def undisturbed(client: Client, spec: dict[str, Any]) -> str:
    """Digest of the weights of a job that nobody touched; it held both slots for as long as it ran."""
    wide = client.submit(spec)
    in_mid_training(wide)
    narrow = client.submit({**spec, "devices": 1, "training": {"epochs": 1}})
    assert narrow.status == "queued"
    found = weights(wide)
    assert narrow.wait().has_succeeded, "the slots are free again"
    ended, began = wide.refresh().finished_at, narrow.refresh().started_at
    assert ended is not None
    assert began is not None
    assert ended <= began
    (told,) = [one.event for one in wide.watch() if isinstance(one.event, Noted) and one.event.code == "ranks"]
    assert told.message == "2 devices share each batch of 64 samples."
    assert ranks() == []
    return found


@pytest.mark.slow
def test_a_job_that_lost_its_trainer_leaves_no_rank_and_ends_with_the_same_weights(
    client: Client, spec: dict[str, Any], undisturbed: str
) -> None:
    job = client.submit(spec)
    training = in_mid_training(job)
    agent = training[0].parent()
    assert agent is not None
    assert "worker.engine.agent" in agent.cmdline()
    os.kill(agent.ppid(), signal.SIGKILL)
    wait_until(lambda: are_gone([agent, *training]), 10)
    assert weights(job) == undisturbed
    assert (job.refresh().attempt, job.refresh().losses) == (2, 1)


@pytest.mark.slow
def test_a_killed_rank_costs_no_attempt(client: Client, spec: dict[str, Any], undisturbed: str) -> None:
    job = client.submit(spec)
    training = in_mid_training(job)
    training[1].send_signal(signal.SIGKILL)
    assert weights(job) == undisturbed
    assert (job.refresh().attempt, job.refresh().losses) == (1, 0)


def test_cancelling_ends_every_process(client: Client, spec: dict[str, Any]) -> None:
    job = client.submit({**spec, "training": {**spec["training"], "epochs": 10_000}})
    training = in_mid_training(job)
    job.cancel()
    assert job.wait().status == "cancelled"
    wait_until(lambda: are_gone(training), 10)


def test_the_plan_tells_what_is_shared(client: Client, spec: dict[str, Any]) -> None:
    student = {"kind": "mlp", "hidden": [16], "batch_norm": True}
    notes = {note.code: note for note in client.plan({**spec, "student": student}).notes}
    assert notes["ranks"].message == (
        "2 devices share each batch of 64 samples. batch normalisation looks at each device's 32 alone. Memory and "
        "seconds are told for one device that takes whole batches."
    )


def test_a_batch_that_cannot_be_shared_is_refused_at_once(client: Client, spec: dict[str, Any]) -> None:
    with pytest.raises(StillhouseApiError) as caught:
        client.submit({**spec, "devices": 3})
    assert {error.pointer for error in caught.value.problem.errors} == {"/devices"}


def test_a_job_wider_than_every_worker_says_what_it_waits_for(client: Client, spec: dict[str, Any]) -> None:
    job = client.submit({**spec, "devices": 4})
    place = job.refresh().queue
    assert place is not None
    assert place.reason == "waits for a cpu worker with 4 slots, all free at once"
    job.cancel()
