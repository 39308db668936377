"""A fleet to which nothing happens."""

from pathlib import Path

from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet, is_alive
from tests.fixtures.waiting import wait_until


def test_the_next_job_needs_no_ring(fleet: Fleet) -> None:
    fleet.start_worker(STILLHOUSE_RING_AGAIN_SECONDS="600", STILLHOUSE_REAP_SECONDS="600")
    first = fleet.submit(steps=20, wait=0.05)
    fleet.wait_for_step(first, 2)
    second = fleet.desk.submit(labels={"noop.steps": "2"})
    fleet.wait_for(second, Status.SUCCEEDED)


def test_cancelling_a_running_job(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=10_000, wait=0.05)
    trainer = worker.the_trainer()
    fleet.wait_for_step(job_id, 2)
    assert fleet.desk.cancel(job_id) == Status.CANCELLING
    fleet.wait_for(job_id, Status.CANCELLED)
    wait_until(lambda: not is_alive(trainer))
    fleet.wait_for(fleet.submit(steps=1), Status.SUCCEEDED)


def test_a_plan_is_claimed_while_every_training_slot_is_busy(fleet: Fleet) -> None:
    fleet.start_worker(STILLHOUSE_SLOTS="2")
    training = [fleet.submit(steps=10_000, wait=0.05) for _ in range(3)]
    wait_until(lambda: sorted(fleet.desk.row(job_id).status for job_id in training) == ["queued", "running", "running"])
    plan = fleet.submit(to="plans", steps=2)
    fleet.wait_for(plan, Status.SUCCEEDED)
    assert sorted(fleet.desk.row(job_id).status for job_id in training) == ["queued", "running", "running"]


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
