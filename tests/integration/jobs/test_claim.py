"""Claiming: no job twice, every job once, the best one first."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.jobs import life, queries, service
from app.jobs.models import JobAttemptRow, JobRow
from stillhouse.contract.events import StatusChanged
from stillhouse.contract.resources import QueuePlace
from stillhouse.contract.status import Phase, Request, Status
from tests.fixtures.jobs import LEASE, Desk
from tests.fixtures.waiting import wait_until, waits_for_lock

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_claim_takes_the_job(desk: Desk) -> None:
    job_id = desk.submit(name="digits")
    claim = desk.claim("worker-7")
    row = desk.row(job_id)
    assert (claim.job_id, claim.owner, claim.attempt, claim.losses, claim.worker) == (job_id, "ann", 1, 0, "worker-7")
    assert claim.spec == row.spec
    assert claim.spec["name"] == "digits"
    assert claim.checkpoint is None
    assert (row.status, row.phase, row.attempt, row.lease_worker) == (Status.RUNNING, Phase.STAGING, 1, "worker-7")
    assert row.started_at is not None
    assert row.lease_until is not None
    assert timedelta(seconds=LEASE - 5) < row.lease_until - row.started_at <= timedelta(seconds=LEASE + 5)
    assert desk.statuses(job_id) == [Status.QUEUED, Status.RUNNING]


def test_an_attempt_is_written_down(desk: Desk) -> None:
    job_id = desk.submit()
    desk.claim("worker-7")
    with desk.db.reading() as session:
        [attempt] = service.attempts(session, job_id)
    assert (attempt.attempt, attempt.worker, attempt.ended_at, attempt.outcome) == (1, "worker-7", None, None)


def test_nothing_to_claim(desk: Desk) -> None:
    assert life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE) is None


def test_only_the_queues_that_a_worker_serves(desk: Desk) -> None:
    job_id = desk.submit(queue="gpu")
    assert life.claim(desk.db, queues=["cpu", "plans"], worker="w", lease_seconds=LEASE) is None
    assert desk.claim(queue="gpu").job_id == job_id


def test_the_first_start_is_kept(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    started_at = desk.row(job_id).started_at
    life.lose(desk.db, claim, "gone", max_losses=5)
    desk.claim()
    assert desk.row(job_id).started_at == started_at


def test_no_job_is_claimed_twice_and_none_is_left(desk: Desk) -> None:
    jobs = [desk.submit(owner) for owner in ("ann", "bob", "cy") for _ in range(10)]

    def claim_all(worker: int) -> list[str]:
        claimed = []
        while claim := life.claim(desk.db, queues=["cpu"], worker=f"worker-{worker}", lease_seconds=LEASE):
            claimed.append(claim.job_id)
        return claimed

    with ThreadPoolExecutor(12) as pool:
        claimed = Counter(job_id for taken in pool.map(claim_all, range(12)) for job_id in taken)
    assert claimed == Counter(jobs)
    with desk.db.reading() as session:
        assert session.query(JobAttemptRow).count() == len(jobs)


def test_a_row_that_is_locked_for_a_moment_is_not_missed(postgres_desk: Desk) -> None:
    job_id = postgres_desk.submit()
    with ThreadPoolExecutor(1) as pool:
        with postgres_desk.db.writing() as session:
            session.execute(select(JobRow).with_for_update())
            claiming = pool.submit(postgres_desk.claim)
            wait_until(lambda: waits_for_lock(postgres_desk.db))
        assert claiming.result(timeout=10).job_id == job_id


def test_priority_goes_first(desk: Desk) -> None:
    low, high = desk.submit(), desk.submit(priority=5)
    assert [desk.claim().job_id, desk.claim().job_id] == [high, low]


def test_a_fair_share_goes_before_any_priority(desk: Desk) -> None:
    desk.submit("ann")
    desk.claim()
    low, high, other = desk.submit("ann"), desk.submit("ann", priority=10), desk.submit("bob", priority=-10)
    places = [place(desk, job_id) for job_id in (other, high, low)]
    assert [told and told.position for told in places] == [1, 2, 3]
    # Now both have one that runs, and bob's next one is level with ann's.
    assert desk.claim().job_id == other
    level = desk.submit("bob", priority=5)
    assert [desk.claim().job_id for _ in range(3)] == [high, level, low]


def test_a_claim_takes_jobs_of_one_width(desk: Desk) -> None:
    narrow, wide = desk.submit(), desk.submit(devices=2)
    assert life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE, num_devices=4) is None
    assert desk.claim(num_devices=2).job_id == wide
    assert desk.claim().job_id == narrow
    assert life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE) is None


def test_the_width_to_take_is_that_of_the_best_job_that_fits(desk: Desk) -> None:
    def width(most: int) -> int | None:
        return life.next_width(desk.db, queues=["cpu"], max_devices=most)

    assert width(8) is None
    desk.submit(devices=4)
    desk.submit()
    assert [width(most) for most in (8, 4, 3, 1)] == [4, 4, 1, 1]
    desk.submit(devices=2, priority=1)
    assert [width(most) for most in (8, 3, 1)] == [2, 2, 1]
    assert life.next_width(desk.db, queues=["gpu"], max_devices=8) is None


def test_a_plan_takes_one_slot_however_wide_its_job_is(desk: Desk) -> None:
    plan_id = desk.submit(devices=4, queue="plans")
    assert desk.claim(queue="plans").job_id == plan_id


def test_owners_share_fairly(desk: Desk) -> None:
    first, second, third = desk.submit("ann"), desk.submit("ann"), desk.submit("ann")
    other = desk.submit("bob")
    assert [desk.claim().job_id for _ in range(4)] == [first, other, second, third]


@pytest.mark.parametrize("status", [Status.PAUSING, Status.CANCELLING])
def test_a_job_that_is_being_stopped_counts_as_running(desk: Desk, status: Status) -> None:
    held = desk.submit("ann")
    desk.claim()
    desk.set(held, status=status)
    desk.submit("ann")
    other = desk.submit("bob")
    assert desk.claim().job_id == other


def test_age_decides_last_and_then_the_id(desk: Desk) -> None:
    jobs = [desk.submit() for _ in range(3)]
    desk.set(jobs[2], created_at=EPOCH - timedelta(days=1))
    desk.set(jobs[0], created_at=EPOCH)
    desk.set(jobs[1], created_at=EPOCH)
    assert [desk.claim().job_id for _ in range(3)] == [jobs[2], *sorted(jobs[:2])]


def place(desk: Desk, job_id: str) -> QueuePlace | None:
    row = desk.row(job_id)
    with desk.db.reading() as session:
        return service.queue_place(session, row)


def test_the_place_in_the_queue(desk: Desk) -> None:
    first, second, other = desk.submit("ann"), desk.submit("ann"), desk.submit("bob")
    desk.submit("ann", queue="gpu")
    assert place(desk, first) == QueuePlace(position=1, reason="waits for a free cpu worker")
    assert place(desk, second) == QueuePlace(position=2, reason="1 queued before it; waits for a free cpu worker")
    assert place(desk, other) == QueuePlace(position=3, reason="2 queued before it; waits for a free cpu worker")


def test_a_place_far_back_is_not_counted_to_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_COUNTED", 2)
    jobs = [desk.submit() for _ in range(4)]
    told = [place(desk, job_id) for job_id in jobs]
    assert [one and one.position for one in told] == [1, 2, 3, 3]
    assert told[3] == QueuePlace(position=3, reason="2 or more queued before it; waits for a free cpu worker")


def test_a_wide_job_is_told_what_it_waits_for(desk: Desk) -> None:
    job_id = desk.submit(devices=4)
    assert place(desk, job_id) == QueuePlace(
        position=1, reason="waits for a cpu worker with 4 slots, all free at once"
    )


def test_the_place_in_the_queue_follows_the_fair_share(desk: Desk) -> None:
    first, second, other = desk.submit("ann"), desk.submit("ann"), desk.submit("bob")
    urgent = desk.submit("cy", priority=1)
    desk.claim()
    desk.claim()
    places = [place(desk, job_id) for job_id in (urgent, first, other, second)]
    assert [told and told.position for told in places] == [None, None, 1, 2]


def test_the_log_tells_the_attempt(desk: Desk) -> None:
    job_id = desk.submit()
    life.stop(desk.db, desk.claim(), Request.DRAIN)
    desk.claim()
    told = [(line.attempt, line.event.status) for line in desk.events(job_id) if isinstance(line.event, StatusChanged)]
    assert told == [(0, Status.QUEUED), (1, Status.RUNNING), (1, Status.QUEUED), (2, Status.RUNNING)]
