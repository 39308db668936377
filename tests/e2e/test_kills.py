"""The real engine in real processes: whoever is killed in mid-job, the job ends with the same weights."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from stillhouse import Client
from stillhouse.client import JobHandle
from stillhouse.contract.events import CheckpointSaved, Progressed
from stillhouse.contract.status import Phase
from stillhouse.local.service import LocalService
from tests.e2e.conftest import Running
from tests.fixtures.waiting import wait_until

LEASE = {"STILLHOUSE_LEASE_SECONDS": "3", "STILLHOUSE_REAP_SECONDS": "0.5", "STILLHOUSE_RING_AGAIN_SECONDS": "1"}


@pytest.fixture(scope="module")
def service(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    with running(tmp_path_factory.mktemp("home"), workers=2, environment=LEASE) as local:
        yield local


@pytest.fixture(scope="module")
def client(service: LocalService) -> Iterator[Client]:
    with Client(service.url, service.key) as client:
        yield client


@pytest.fixture(scope="module")
def data(client: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(4096, 32)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(path, inputs=inputs, labels=np.argmax(inputs[:, :4], axis=1))
    return client.upload(path).id


def submit(client: Client, data: str) -> JobHandle:
    """A job of some seconds, with all that is hard to resume: dropout, batch norm, momentum, an average of weights."""
    return client.submit({
        "teacher": {"kind": "train", "architecture": {"kind": "mlp", "hidden": [32]}, "training": {"epochs": 3}},
        "student": {"kind": "mlp", "hidden": [16], "dropout": 0.1, "batch_norm": True},
        "data": {"kind": "npz", "train": {"artifact": data}},
        "training": {
            "epochs": 150, "batch_size": 64, "evaluate_every": 10, "ema_decay": 0.99, "checkpoint_seconds": 1,
        },
        "control": False,
    })


@pytest.fixture(scope="module")
def undisturbed(client: Client, data: str) -> str:
    """Digest of the weights of a job that nobody touched."""
    return weights(submit(client, data))


def weights(job: JobHandle) -> str:
    assert job.wait().has_succeeded, job.logs()
    return next(file.sha256 for file in job.refresh().files if file.role == "safetensors")


def in_mid_training(job: JobHandle) -> None:
    """Return when a checkpoint of the student is stored and some steps more are done."""
    saved_at: int | None = None
    for recorded in job.watch():
        event = recorded.event
        if isinstance(event, CheckpointSaved) and event.phase is Phase.DISTILLING:
            saved_at = event.step
        if isinstance(event, Progressed) and saved_at is not None and event.step > saved_at:
            return
    pytest.fail("the job ended before it could be disturbed; make it longer")


def living(processes: list[psutil.Process], word: str = "") -> list[psutil.Process]:
    """Those that run, with the word in their command line; the dead wait here until their parent collects them."""
    found = [process for process in processes if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in found if word in " ".join(process.cmdline())]


def trainers() -> list[tuple[psutil.Process, psutil.Process, psutil.Process]]:
    """Worker, forkserver and trainer of each running job."""
    return [
        (worker, server, trainer)
        for worker in living(psutil.Process().children(recursive=True), "-m worker")
        for server in living(worker.children(), "multiprocessing.forkserver")
        for trainer in living(server.children())
    ]


@pytest.mark.parametrize("victim", [
    pytest.param("trainer", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow),
    "worker",  # last: one of two is left then
])
def test_a_killed_job_ends_with_the_weights_of_an_undisturbed_one(
    client: Client, data: str, undisturbed: str, victim: str
) -> None:
    job = submit(client, data)
    in_mid_training(job)
    ((worker, server, trainer),) = trainers()
    chosen = {"trainer": trainer, "forkserver": server, "worker": worker}[victim]
    os.kill(chosen.pid, signal.SIGKILL)
    assert weights(job) == undisturbed
    if victim != "forkserver":  # a trainer outlives its forkserver
        assert job.refresh().attempt == 2
        assert job.refresh().losses == 1


@pytest.mark.slow
def test_a_paused_job_ends_with_the_weights_of_an_undisturbed_one(
    client: Client, data: str, undisturbed: str
) -> None:
    job = submit(client, data)
    in_mid_training(job)
    job.pause()
    wait_until(lambda: job.refresh().status != "pausing", 60)
    assert (job.status, trainers()) == ("paused", [])
    job.resume()
    assert weights(job) == undisturbed
    assert (job.refresh().attempt, job.refresh().losses) == (2, 0)
