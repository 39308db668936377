"""What a user may ask of a job that is there: to pause and to go on."""

import pytest

from app.jobs import life, service
from app.kit.clock import now
from stillhouse.contract.events import CheckpointSaved, Finished, StatusChanged
from stillhouse.contract.failures import DivergedError, IllegalActionError, NotFoundError
from stillhouse.contract.report import Interruption
from stillhouse.contract.status import TERMINAL, Phase, Request, Status
from tests.fixtures.jobs import LEASE, Desk, upload
from tests.fixtures.reports import small_report

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


# Cancel, and keep the best student


CUT = Finished(
    report=small_report().model_copy(update={"interrupted": Interruption(step=3, total_steps=9)}), files=[]
)


def checkpointed(desk: Desk) -> tuple[str, life.Claim]:
    """A job that runs, with a checkpoint."""
    job_id = desk.submit()
    claim = desk.claim()
    checkpoint = upload(desk.db, desk.stores, b"state", kind="state", job_id=job_id).id
    life.save_checkpoint(desk.db, claim, CHECKPOINT, checkpoint)
    return job_id, claim


def waiting(desk: Desk, status: Status) -> str:
    """A job that waits in this status, with a checkpoint."""
    job_id, claim = checkpointed(desk)
    if status is Status.PAUSED:
        desk.pause(job_id)
    life.stop(desk.db, claim, Request.DRAIN)
    assert desk.row(job_id).status is status
    return job_id


def test_what_runs_is_finished_by_its_worker_and_ends_cancelled_with_files(desk: Desk) -> None:
    job_id, claim = checkpointed(desk)
    assert life.kept(desk.db, claim) is None
    assert desk.cancel(job_id, keep="best") is Status.CANCELLING
    assert life.renew(desk.db, claim, LEASE) is Status.CANCELLING
    assert life.kept(desk.db, claim) == "best"
    model = upload(desk.db, desk.stores, b"model", kind="model", into="database", job_id=job_id).id
    assert life.succeed(desk.db, claim, CUT, [("bundle", model)]) is Status.CANCELLED
    row = desk.row(job_id)
    assert row.report is not None
    assert (row.keep, row.report["interrupted"]["step"]) == ("best", 3)
    with desk.db.reading() as session:
        assert {role: file.id for role, file in service.files(session, job_id).items()} == {"bundle": model}
    assert "kept" in reasons(desk, job_id)[-1]


def test_a_training_that_was_over_already_succeeds_all_the_same(desk: Desk) -> None:
    job_id, claim = checkpointed(desk)
    desk.cancel(job_id, keep="best")
    assert life.succeed(desk.db, claim, Finished(report=small_report(), files=[]), []) is Status.SUCCEEDED


def test_nothing_to_keep_is_said(desk: Desk) -> None:
    waiting_job = desk.submit()
    assert desk.cancel(waiting_job, keep="best") is Status.CANCELLED
    running = desk.submit()
    claim = desk.claim()
    assert desk.cancel(running, keep="best") is Status.CANCELLING
    assert life.stop(desk.db, claim, Request.FINISH) is Status.CANCELLED
    for job_id in (waiting_job, running):
        assert "nothing to keep" in reasons(desk, job_id)[-1]


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PAUSED])
def test_what_waits_with_a_checkpoint_is_claimed_once_more(desk: Desk, status: Status) -> None:
    job_id = waiting(desk, status)
    assert [desk.cancel(job_id, keep="best") for _ in range(2)] == [Status.QUEUED] * 2
    with pytest.raises(IllegalActionError, match="cannot be paused"):
        desk.pause(job_id)
    claim = desk.claim("worker-2")
    assert (claim.job_id, claim.keep, desk.row(job_id).status) == (job_id, "best", Status.CANCELLING)
    assert claim.checkpoint is not None
    assert life.succeed(desk.db, claim, CUT, []) is Status.CANCELLED


@pytest.mark.parametrize("let_go", ["drain", "loss", "reap"])
def test_another_worker_finishes_when_the_first_is_gone(desk: Desk, let_go: str) -> None:
    job_id, claim = checkpointed(desk)
    desk.cancel(job_id, keep="best")
    if let_go == "drain":
        life.stop(desk.db, claim, Request.DRAIN)
    elif let_go == "loss":
        life.lose(desk.db, claim, "crashed", 5)
    else:
        desk.expire(job_id)
        life.reap(desk.db, 5)
    assert desk.row(job_id).status is Status.QUEUED
    assert desk.claim("worker-2").keep == "best"
    assert attempts(desk, job_id)[0][2] == ("drained" if let_go == "drain" else "lost")


def test_a_job_lost_too_often_while_it_is_finished_is_cancelled_plainly(desk: Desk) -> None:
    job_id, claim = checkpointed(desk)
    desk.cancel(job_id, keep="best")
    assert life.lose(desk.db, claim, "crashed", 1) is Status.CANCELLED
    assert "nothing was kept" in reasons(desk, job_id)[-1]


def test_without_a_checkpoint_nothing_is_kept_of_a_lost_one(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.cancel(job_id, keep="best")
    assert life.lose(desk.db, claim, "crashed", 5) is Status.CANCELLED


def test_what_was_to_be_kept_may_be_given_up_but_not_the_other_way_round(desk: Desk) -> None:
    job_id, claim = checkpointed(desk)
    desk.cancel(job_id, keep="best")
    assert desk.cancel(job_id) is Status.CANCELLING
    assert life.kept(desk.db, claim) is None
    assert desk.cancel(job_id, keep="best") is Status.CANCELLING
    assert life.kept(desk.db, claim) is None
    assert life.stop(desk.db, claim, Request.CANCEL) is Status.CANCELLED
    waits = waiting(desk, Status.QUEUED)
    desk.cancel(waits, keep="best")
    assert desk.cancel(waits) is Status.CANCELLED
    assert [line.seq for line in desk.events(job_id)] == list(range(1, desk.row(job_id).last_seq + 1))


def reasons(desk: Desk, job_id: str) -> list[str]:
    return [line.event.reason for line in desk.events(job_id) if isinstance(line.event, StatusChanged)]


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
