"""Plans with the real engine, through API, queue and worker, while the only training slot is taken."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse import Client
from stillhouse.client import StillhouseApiError
from stillhouse.contract.spec import CheckpointTeacher, Cnn, IdxData, IdxSplit, JobSpec, Mlp, Training
from stillhouse.local import LocalService
from tests.e2e.conftest import Running, command, environment_of
from tests.fixtures.waiting import wait_until


@pytest.fixture(scope="module")
def local(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A whole service with one slot for training."""
    with running(tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.fixture
def client(local: LocalService) -> Iterator[Client]:
    with Client(local.url, local.key) as opened:
        yield opened


@pytest.fixture
def spec(client: Client, teacher: Path, small_mnist: Path) -> JobSpec:
    """A job that would take hours."""
    images, labels = (client.upload(small_mnist / f"train-{name}-ubyte").id for name in ("images-idx3", "labels-idx1"))
    return JobSpec(
        teacher=CheckpointTeacher(artifact=client.upload(teacher).id), student=Mlp(hidden=[64]),
        data=IdxData(train=IdxSplit(inputs=images, labels=labels)), training=Training(epochs=100_000),
    )


def test_a_plan_answers_while_the_only_slot_trains(
    client: Client, local: LocalService, spec: JobSpec, teacher: Path, small_mnist: Path, tmp_path: Path
) -> None:
    job = client.submit(spec)
    wait_until(lambda: (client.job(job.id).job.progress.step or 0) > 0, 60)
    waiting = client.submit(spec)
    plan = client.plan(spec)
    assert (client.job(job.id).status, client.job(waiting.id).status) == ("running", "queued")
    assert (plan.student.architecture, plan.student.num_parameters) == ("mlp 784-64-10", 50_890)
    assert plan.student.macs == 784 * 64 + 64 * 10
    assert plan.teacher is not None
    assert plan.teacher.num_parameters == 98_682
    assert plan.seconds.num_steps == 100_000 * (1800 // 128)
    assert [split.num_samples for split in plan.data.splits] == [1800, 200]
    assert [one.id for one in client.jobs()] == [waiting.id, job.id]

    done = subprocess.run(
        command("plan", str(teacher), "--student", "mlp:64", "--data", str(small_mnist), "--json"),
        cwd=tmp_path, env=environment_of(local.home), capture_output=True, text=True, check=False, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["student"]["num_parameters"] == 50_890
    for one in (waiting, job):
        one.cancel()
    assert job.wait(timeout=60).status == "cancelled"


def test_a_mistake_that_only_the_weights_show_is_told_with_its_field(client: Client, spec: JobSpec) -> None:
    assert isinstance(spec.teacher, CheckpointTeacher)
    other = spec.teacher.model_copy(update={"architecture": Cnn(channels=[4, 8])})
    with pytest.raises(StillhouseApiError) as caught:
        client.plan(spec.model_copy(update={"teacher": other}))
    assert (caught.value.status, caught.value.code) == (422, "weights_mismatch")
    assert caught.value.param == "/teacher/architecture"
    assert "body.12.weight" in caught.value.message
