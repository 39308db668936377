"""What a user may ask of a job that is there: to pause and to go on."""

import pytest

from app.jobs import life, service
from app.kit.clock import now
from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.failures import DivergedError, IllegalActionError, NotFoundError
from stillhouse.contract.status import TERMINAL, Phase, Request, Status
from tests.fixtures.jobs import LEASE, Desk, upload

CHECKPOINT = CheckpointSaved(phase=Phase.DISTILLING, step=1, file="checkpoint")


# Pause and resume


def test_what_waits_is_paused_at_once_and_claimed_by_nobody(desk: Desk) -> None:
    job_id = desk.submit()
    assert desk.pause(job_id) is Status.PAUSED
    assert life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE) is None
    assert life.take_rings(desk.db, older_than_seconds=0, limit=9) == []
    assert desk.resume(job_id) is Status.QUEUED
    assert desk.claim().job_id == job_id
    assert desk.statuses(job_id) == ["queued", "paused", "queued", "running"]


def test_what_runs_is_paused_by_its_worker_and_resumed_from_its_checkpoint(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    checkpoint = upload(desk.db, desk.stores, b"state", kind="state", job_id=job_id).id
    assert desk.pause(job_id) is Status.PAUSING
    assert life.renew(desk.db, claim, LEASE) is Status.PAUSING
    life.save_checkpoint(desk.db, claim, CHECKPOINT, checkpoint)
    assert life.stop(desk.db, claim, Request.PAUSE) is Status.PAUSED
    assert (desk.row(job_id).lease_worker, desk.row(job_id).losses) == (None, 0)
    assert desk.resume(job_id) is Status.QUEUED
    again = desk.claim("worker-2")
    assert (again.job_id, again.attempt, again.checkpoint) == (job_id, 2, checkpoint)


def test_pausing_and_resuming_twice_changes_nothing(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    assert [desk.pause(job_id) for _ in range(2)] == [Status.PAUSING] * 2
    life.stop(desk.db, claim, Request.PAUSE)
    assert desk.pause(job_id) is Status.PAUSED
    assert [desk.resume(job_id) for _ in range(2)] == [Status.QUEUED] * 2
    desk.claim()
    assert desk.resume(job_id) is Status.RUNNING
    assert desk.statuses(job_id) == ["queued", "running", "pausing", "paused", "queued", "running"]


def test_a_resumed_job_keeps_its_age(desk: Desk) -> None:
    first, second = desk.submit(), desk.submit()
    desk.pause(first)
    desk.resume(first)
    assert [desk.claim().job_id, desk.claim().job_id] == [first, second]


def test_a_resumed_job_counts_as_rung(desk: Desk) -> None:
    job_id = desk.submit()
    desk.pause(job_id)
    desk.resume(job_id)
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == []
    desk.set(job_id, rung_at=now(-31))
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == [(job_id, "cpu")]


@pytest.mark.parametrize("status", sorted({*TERMINAL, Status.CANCELLING}))
def test_what_has_ended_or_is_about_to_cannot_be_paused(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    desk.set(job_id, status=status)
    with pytest.raises(IllegalActionError, match=status):
        desk.pause(job_id)
    assert desk.row(job_id).status is status


@pytest.mark.parametrize("status", sorted({*TERMINAL, Status.CANCELLING, Status.PAUSING}))
def test_only_what_is_paused_can_be_resumed(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    desk.set(job_id, status=status)
    with pytest.raises(IllegalActionError, match=f"{status}.* be resumed"):
        desk.resume(job_id)
    assert desk.row(job_id).status is status


def test_nobody_pauses_or_resumes_the_job_of_another_or_a_plan(desk: Desk) -> None:
    job_id, plan_id = desk.submit("ann"), desk.submit("ann", queue="plans")
    for ask in (desk.pause, desk.resume):
        with pytest.raises(NotFoundError):
            ask(job_id, "bob")
        with pytest.raises(NotFoundError):
            ask(plan_id)
    assert desk.row(job_id).status is Status.QUEUED


# Attempts


def attempts(desk: Desk, job_id: str) -> list[tuple[int, str, str | None, str | None]]:
    with desk.db.reading() as session:
        rows = service.attempts_without_logs(session, job_id)
    assert all((row.ended_at is None) == (row.outcome is None) for row in rows)
    return [(row.attempt, row.worker, row.outcome, row.reason) for row in rows]


def test_every_attempt_tells_how_it_ended_and_why(desk: Desk) -> None:
    job_id = desk.submit()
    life.stop(desk.db, desk.claim("a"), Request.DRAIN)
    life.lose(desk.db, desk.claim("b"), "the trainer was killed by SIGKILL", 5)
    claim = desk.claim("c")
    desk.pause(job_id)
    life.stop(desk.db, claim, Request.PAUSE)
    desk.resume(job_id)
    desk.claim("d")
    desk.expire(job_id)
    life.reap(desk.db, 5)
    last = desk.claim("e")
    assert attempts(desk, job_id)[-1] == (5, "e", None, None)
    life.fail(desk.db, last, DivergedError().as_failure())
    assert attempts(desk, job_id) == [
        (1, "a", "drained", "the worker is shutting down"), (2, "b", "lost", "the trainer was killed by SIGKILL"),
        (3, "c", "paused", "paused"), (4, "d", "lost", "the worker was lost"), (5, "e", "failed", "diverged"),
    ]
