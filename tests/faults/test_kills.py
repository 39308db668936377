"""Every death named in the design leads to the same result as a life without it."""

import os
import signal

import pytest

from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet, is_alive
from tests.fixtures.noop_engine import count
from tests.fixtures.recovery import Recovery
from tests.fixtures.waiting import wait_until

NUM_STEPS = 60

fault = pytest.mark.fault


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


@fault("SIGKILL of a trainer", sees="`attempt` 2, `losses` 1; goes on at the last checkpoint")
def test_sigkill_of_the_trainer(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    os.kill(worker.the_trainer(), signal.SIGKILL)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert_counted_once(fleet, job_id, num_runs=2)


@fault("SIGKILL of a worker's forkserver", sees="nothing: the trainer goes on; the next job gets a new forkserver")
def test_sigkill_of_the_forkserver(fleet: Fleet, recovery: Recovery) -> None:
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
    recovery.begins()
    following = fleet.submit(steps=200, wait=0.01)
    recovery.ends(lambda: fleet.runs_again(following, attempt=1))
    fleet.wait_for(following, Status.SUCCEEDED)
    assert worker.forkserver != first
    assert not [name for name in fleet.result(following)["environment"] if name.startswith("STILLHOUSE_")]


@fault("SIGKILL of a forkserver and its trainer", sees="`attempt` 2, `losses` 1; goes on at the last checkpoint")
def test_sigkill_of_the_forkserver_and_of_its_trainer(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    trainer = worker.the_trainer()
    os.kill(worker.forkserver, signal.SIGKILL)
    os.kill(trainer, signal.SIGKILL)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).losses == 1
    assert_counted_once(fleet, job_id, num_runs=2)


@fault("SIGKILL of a worker", sees="`attempt` 2, `losses` 1 when the lease has ended; goes on in another worker")
def test_sigkill_of_the_worker(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    worker = fleet.worker_of(job_id)
    trainer, forkserver = worker.the_trainer(), worker.forkserver
    worker.kill()
    recovery.begins()
    wait_until(lambda: not is_alive(trainer))
    wait_until(lambda: not is_alive(forkserver))
    (folder,) = [path for path in worker.scratch.iterdir() if path.is_dir()]
    last = max(int(path.stem.rsplit("-", 1)[1]) for path in folder.glob("checkpoint-*"))
    assert last > 10, "it wrote a checkpoint when it noticed"
    assert "The supervisor died" in folder.with_suffix(".log").read_text()
    assert fleet.desk.row(job_id).status == Status.RUNNING, "only the lease says that the worker is gone"
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.start_worker(STILLHOUSE_SCRATCH_FOLDER=str(worker.scratch)).wait_until_ready()
    assert [path.name for path in worker.scratch.iterdir() if path.name != "pulse"] == [], "the next one sweeps"
    fleet.wait_for(job_id, Status.SUCCEEDED)
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert_counted_once(fleet, job_id, num_runs=2)


@fault("SIGKILL of the trainer of a plan", sees="the plan is made anew: `attempt` 2")
def test_sigkill_of_the_trainer_of_a_plan(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    plan_id = fleet.submit(to="plans", steps=30, wait=0.1)
    os.kill(worker.the_trainer(), signal.SIGKILL)
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(plan_id).attempt == 2)
    fleet.wait_for(plan_id, Status.SUCCEEDED)
    row = fleet.desk.row(plan_id)
    assert (row.attempt, row.losses) == (2, 1)


@fault("SIGKILL of the worker of a plan", sees="the plan is made anew when the lease has ended")
def test_sigkill_of_the_worker_of_a_plan(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    plan_id = fleet.submit(to="plans", steps=30, wait=0.1)
    worker = fleet.worker_of(plan_id)
    trainer = worker.the_trainer()
    worker.kill()
    recovery.begins()
    wait_until(lambda: not is_alive(trainer))
    recovery.ends(lambda: fleet.desk.row(plan_id).attempt == 2)
    fleet.wait_for(plan_id, Status.SUCCEEDED)
    row = fleet.desk.row(plan_id)
    assert (row.attempt, row.losses) == (2, 1)
    assert row.plan is not None


@fault(
    "SIGTERM or SIGINT to a worker or its group",
    sees="a last checkpoint, then `queued`, no loss; goes on in another worker, with the same result bit by bit",
)
@pytest.mark.parametrize(
    ("number", "to_group"), [
        (signal.SIGTERM, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_drains(fleet: Fleet, recovery: Recovery, number: signal.Signals, to_group: bool) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=NUM_STEPS, wait=0.05, every=1000)
    fleet.wait_for_step(job_id, 12)
    worker.send(number, to_group=to_group)
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.QUEUED)
    assert worker.process.wait(60) == 0
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


@fault("SIGTERM to one of two workers", sees="`queued` for a moment, no loss; goes on in the other worker")
def test_a_drained_job_moves_to_a_worker_that_is_up(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair(STILLHOUSE_RING_AGAIN_SECONDS="600", STILLHOUSE_REAP_SECONDS="600")
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    fleet.worker_of(job_id).send(signal.SIGTERM)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_counted_once(fleet, job_id, num_runs=2)


@fault(
    "SIGSTOP of a worker for longer than its lease, then SIGCONT",
    sees="`attempt` 2 in another worker when the lease has ended; what the first one writes later is refused",
)
def test_sigstop_beyond_the_lease(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    job_id = submit_endless(fleet)
    fleet.wait_for_step(job_id, 7)
    stopped = fleet.worker_of(job_id)
    trainer = stopped.the_trainer()
    with fleet.desk.db.writing() as session:
        session.connection()  # whoever is stopped in the middle of a write keeps SQLite's lock until it is woken
        stopped.send(signal.SIGSTOP)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    assert is_alive(trainer), "nobody has told it"
    stopped.send(signal.SIGCONT)
    wait_until(lambda: not is_alive(trainer))
    fleet.wait_for(fleet.submit(steps=2), Status.SUCCEEDED)
    fleet.desk.cancel(job_id)
    fleet.wait_for(job_id, Status.CANCELLED)
    assert fleet.desk.row(job_id).attempt == 2


@fault("SIGKILL of every worker that takes the job", sees="`failed` with `worker_lost`, blame `infrastructure`")
def test_a_worker_that_dies_again_and_again_fails_the_job(fleet: Fleet, recovery: Recovery) -> None:
    job_id = submit_endless(fleet)
    following = fleet.submit(steps=2)
    for attempt in (1, 2):
        worker = fleet.start_worker(STILLHOUSE_MAX_LOSSES="2")
        wait_until(lambda attempt=attempt: fleet.desk.row(job_id).attempt == attempt)  # type: ignore[misc]
        worker.the_trainer()
        worker.kill()
    fleet.start_worker(STILLHOUSE_MAX_LOSSES="2").wait_until_ready()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.FAILED)
    error = fleet.desk.row(job_id).error
    assert error is not None
    assert (error["code"], error["blame"]) == ("worker_lost", "infrastructure")
    fleet.wait_for(following, Status.SUCCEEDED)


@fault("cancel while the job's worker is dead", sees="`cancelling` at once, `cancelled` when the lease has ended")
def test_cancelling_a_job_whose_worker_is_dead(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    job_id = submit_endless(fleet)
    fleet.wait_for_step(job_id, 2)
    fleet.worker_of(job_id).kill()
    assert fleet.desk.cancel(job_id) == Status.CANCELLING
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.CANCELLED)
    assert fleet.desk.row(job_id).attempt == 1
