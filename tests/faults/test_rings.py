"""The queue is a doorbell: rings may come twice, late or never, and wishes reach jobs whose worker is gone."""

import signal

from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet, is_alive
from tests.fixtures.waiting import wait_until


def test_two_rings_for_one_job_run_it_once(fleet: Fleet) -> None:
    job_id = fleet.submit(steps=10)
    fleet.ring(job_id)
    fleet.start_worker(STILLHOUSE_SLOTS="2")
    fleet.wait_for(job_id, Status.SUCCEEDED)
    fleet.wait_for(fleet.submit(steps=1), Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 1
    assert fleet.desk.statuses(job_id) == ["queued", "running", "succeeded"]


def test_a_job_submitted_while_the_broker_is_down_is_rung_again(silent_fleet: Fleet) -> None:
    silent_fleet.start_worker()
    job_id = silent_fleet.submit(steps=3)
    assert silent_fleet.desk.row(job_id).status == Status.QUEUED
    silent_fleet.broker.start()
    silent_fleet.wait_for(job_id, Status.SUCCEEDED)


def test_a_worker_without_a_broker_ends_when_asked(silent_fleet: Fleet) -> None:
    worker = silent_fleet.start_worker()
    wait_until(lambda: b"Cannot connect" in worker.log.read_bytes())
    worker.send(signal.SIGTERM)
    assert worker.process.wait(20) == 0


def test_a_running_job_outlives_its_broker(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=60, wait=0.05)
    fleet.wait_for_step(job_id, 5)
    fleet.broker.stop()
    fleet.wait_for_step(job_id, 15)
    fleet.broker.start()
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).attempt == 1
    following = fleet.submit(steps=2)
    fleet.wait_for(following, Status.SUCCEEDED)
    assert worker.process.poll() is None


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


def test_cancelling_a_job_whose_worker_is_dead(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    job_id = fleet.submit(steps=10_000, wait=0.05)
    fleet.wait_for_step(job_id, 2)
    worker.kill()
    assert fleet.desk.cancel(job_id) == Status.CANCELLING
    fleet.start_worker()
    fleet.wait_for(job_id, Status.CANCELLED)
    assert fleet.desk.row(job_id).attempt == 1


def test_a_plan_is_claimed_while_every_training_slot_is_busy(fleet: Fleet) -> None:
    fleet.start_worker(STILLHOUSE_SLOTS="2")
    training = [fleet.submit(steps=10_000, wait=0.05) for _ in range(3)]
    wait_until(lambda: sorted(fleet.desk.row(job_id).status for job_id in training) == ["queued", "running", "running"])
    plan = fleet.submit(to="plans", steps=2)
    fleet.wait_for(plan, Status.SUCCEEDED)
    assert sorted(fleet.desk.row(job_id).status for job_id in training) == ["queued", "running", "running"]
