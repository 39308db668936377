"""Every death named in the design leads to the same result as a life without it."""

import os
import signal
from pathlib import Path

import pytest

from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet, is_alive
from tests.fixtures.noop_engine import count
from tests.fixtures.waiting import wait_until

NUM_STEPS = 60


def submit(fleet: Fleet) -> str:
    """A job of about three seconds, with a checkpoint every five steps."""
    return fleet.submit(steps=NUM_STEPS, wait=0.05, every=5)


def submit_endless(fleet: Fleet) -> str:
    """A job that no test waits for."""
    return fleet.submit(steps=10_000, wait=0.05, every=5)


def assert_counted_once(fleet: Fleet, job_id: str, *, num_runs: int) -> None:
    """The result is that of an undisturbed job, and later runs went on where a checkpoint was."""
    result = fleet.result(job_id)
    assert result["state"] == count(NUM_STEPS)
    assert len(result["runs"]) == num_runs
    assert all(step > 0 for step in result["runs"][1:])


def test_sigkill_of_the_trainer(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    os.kill(worker.the_trainer(), signal.SIGKILL)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert_counted_once(fleet, job_id, num_runs=2)


def test_sigkill_of_the_forkserver(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    first, trainer = worker.forkserver, worker.the_trainer()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_alive(first))
    fleet.wait_for_step(job_id, 15)
    assert worker.the_trainer() == trainer, "the trainer goes on"
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 1
    assert not is_alive(trainer)
    following = fleet.submit(steps=2)
    fleet.wait_for(following, Status.SUCCEEDED)
    assert worker.forkserver != first
    assert not [name for name in fleet.result(following)["environment"] if name.startswith("STILLHOUSE_")]


def test_sigkill_of_the_forkserver_and_of_its_trainer(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    trainer = worker.the_trainer()
    os.kill(worker.forkserver, signal.SIGKILL)
    os.kill(trainer, signal.SIGKILL)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).losses == 1
    assert_counted_once(fleet, job_id, num_runs=2)


def test_sigkill_of_the_worker(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    trainer, forkserver = worker.the_trainer(), worker.forkserver
    worker.kill()
    wait_until(lambda: not is_alive(trainer))
    wait_until(lambda: not is_alive(forkserver))
    (folder,) = [path for path in worker.scratch.iterdir() if path.is_dir()]
    last = max(int(path.stem.rsplit("-", 1)[1]) for path in folder.glob("checkpoint-*"))
    assert last % 5 or last > 15, "it wrote a checkpoint when it noticed"
    assert "The supervisor died" in folder.with_suffix(".log").read_text()
    assert fleet.desk.row(job_id).status == Status.RUNNING, "only the lease says that the worker is gone"
    fleet.start_worker(STILLHOUSE_SCRATCH_FOLDER=str(worker.scratch))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert_counted_once(fleet, job_id, num_runs=2)
    assert [path.name for path in worker.scratch.iterdir()] == ["pulse"], "what the dead worker left is swept"


def test_sigkill_of_the_trainer_of_a_plan(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    plan_id = fleet.submit(to="plans", steps=30, wait=0.1)
    os.kill(worker.the_trainer(), signal.SIGKILL)
    fleet.wait_for(plan_id, Status.SUCCEEDED)
    row = fleet.desk.row(plan_id)
    assert (row.attempt, row.losses) == (2, 1)


def test_sigkill_of_the_worker_of_a_plan(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    plan_id = fleet.submit(to="plans", steps=30, wait=0.1)
    trainer = worker.the_trainer()
    worker.kill()
    wait_until(lambda: not is_alive(trainer))
    assert fleet.desk.row(plan_id).status == Status.RUNNING, "only the lease says that the worker is gone"
    fleet.start_worker()
    fleet.wait_for(plan_id, Status.SUCCEEDED)
    row = fleet.desk.row(plan_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert row.plan is not None


@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_a_signal_drains(fleet: Fleet, number: signal.Signals, to_group: bool) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=NUM_STEPS, wait=0.05, every=1000)
    fleet.wait_for_step(job_id, 12)
    worker.send(number, to_group=to_group)
    assert worker.process.wait(20) == 0
    row = fleet.desk.row(job_id)
    assert (row.status, row.losses) == (Status.QUEUED, 0)
    saved = [line.event.step for line in fleet.desk.events(job_id) if isinstance(line.event, CheckpointSaved)]
    assert saved[-1] >= 12
    assert worker.trainers() == []
    fleet.start_worker()
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 2
    assert fleet.result(job_id)["runs"] == [0, saved[-1]]
    assert_counted_once(fleet, job_id, num_runs=2)


def test_a_drained_job_moves_to_a_worker_that_is_up(fleet: Fleet) -> None:
    pair = fleet.start_pair(STILLHOUSE_RING_AGAIN_SECONDS="600", STILLHOUSE_REAP_SECONDS="600")
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    (leaving,) = [worker for worker in pair if worker.trainers()]
    leaving.send(signal.SIGTERM)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_counted_once(fleet, job_id, num_runs=2)


def test_sigstop_beyond_the_lease(fleet: Fleet) -> None:
    pair = fleet.start_pair()
    job_id = submit_endless(fleet)
    fleet.wait_for_step(job_id, 7)
    (stopped,) = [worker for worker in pair if worker.trainers()]
    trainer = stopped.the_trainer()
    stopped.send(signal.SIGSTOP)
    wait_until(lambda: fleet.desk.row(job_id).attempt == 2)
    assert is_alive(trainer), "nobody has told it"
    stopped.send(signal.SIGCONT)
    wait_until(lambda: not is_alive(trainer))
    another = fleet.submit(steps=2)
    fleet.wait_for(another, Status.SUCCEEDED)
    fleet.desk.cancel(job_id)
    fleet.wait_for(job_id, Status.CANCELLED)
    attempts = [line.attempt for line in fleet.desk.events(job_id)]
    assert attempts == sorted(attempts), "the first worker wrote nothing after the second began"
    assert fleet.desk.row(job_id).attempt == 2


def test_a_worker_that_dies_again_and_again_fails_the_job(fleet: Fleet) -> None:
    job_id = submit_endless(fleet)
    for attempt in (1, 2):
        worker = fleet.start_worker(STILLHOUSE_MAX_LOSSES="2")
        wait_until(lambda attempt=attempt: fleet.desk.row(job_id).attempt == attempt)  # type: ignore[misc]
        worker.the_trainer()
        worker.kill()
    fleet.start_worker(STILLHOUSE_MAX_LOSSES="2")
    fleet.wait_for(job_id, Status.FAILED)
    error = fleet.desk.row(job_id).error
    assert error is not None
    assert (error["code"], error["blame"]) == ("worker_lost", "infrastructure")


def test_the_forkserver_was_started_without_secrets(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    fleet.wait_for(fleet.submit(steps=1), Status.SUCCEEDED)
    started_with = Path(f"/proc/{worker.forkserver}/environ").read_bytes()
    assert b"sk_secret" not in started_with
    assert b"STILLHOUSE_" not in started_with
    assert b"OMP_WAIT_POLICY=passive" in started_with
    assert len(list(Path(f"/proc/{worker.forkserver}/task").iterdir())) == 1


def test_the_health_check_tells_a_living_worker_from_a_dead_one(fleet: Fleet) -> None:
    worker = fleet.start_worker(STILLHOUSE_LEASE_SECONDS="1", STILLHOUSE_REAP_SECONDS="0.2")
    worker.wait_until_ready()
    assert fleet.health(worker) == 0
    worker.kill()
    wait_until(lambda: fleet.health(worker) == 1)
