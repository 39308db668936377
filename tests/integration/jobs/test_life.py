"""What a worker may do with its job, and what it no longer may once the job was taken away."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.artifacts.service import sweep
from app.jobs import life, log, queries, service
from app.jobs.models import JobAttemptRow, JobEventRow, JobRow
from app.kit.clock import now
from stillhouse.contract.events import (
    CheckpointSaved,
    Failed,
    Finished,
    Measured,
    Noted,
    PhaseStarted,
    Progressed,
    StatusChanged,
    Stopped,
    TrainerEvent,
)
from stillhouse.contract.failures import Blame, DivergedError, Failure, IllegalActionError, NotFoundError
from stillhouse.contract.resources import MetricSeries
from stillhouse.contract.status import AFTER_LOSS, LEASED, TERMINAL, TRANSITIONS, Phase, Request, Status, may_follow
from tests.fixtures.jobs import LEASE, Desk, upload
from tests.fixtures.reports import small_report
from tests.fixtures.waiting import wait_until, waits_for_lock

NOTE = Noted(code="n", message="m")
FINISHED = Finished(report=small_report(), files=[])
CHECKPOINT = CheckpointSaved(phase=Phase.DISTILLING, step=1, file="checkpoint")
FAILURE = DivergedError(step=7).as_failure()

# The fence


WRITES: dict[str, Callable[[Desk, life.Claim], object]] = {
    "renew": lambda desk, claim: life.renew(desk.db, claim, LEASE),
    "record": lambda desk, claim: life.record(desk.db, claim, [NOTE]),
    "save_checkpoint": lambda desk, claim: life.save_checkpoint(desk.db, claim, CHECKPOINT, state(desk, claim)),
    "succeed": lambda desk, claim: life.succeed(desk.db, claim, FINISHED, [("bundle", model(desk, claim))]),
    "fail": lambda desk, claim: life.fail(desk.db, claim, FAILURE),
    "stop": lambda desk, claim: life.stop(desk.db, claim, Request.DRAIN),
    "lose": lambda desk, claim: life.lose(desk.db, claim, "crashed", 5),
}


def state(desk: Desk, claim: life.Claim, content: bytes = b"state") -> str:
    return upload(desk.db, desk.stores, content, kind="state", job_id=claim.job_id).id


def model(desk: Desk, claim: life.Claim, content: bytes = b"model") -> str:
    return upload(desk.db, desk.stores, content, kind="model", into="database", job_id=claim.job_id).id


def take_back(desk: Desk, claim: life.Claim) -> None:
    desk.expire(claim.job_id)
    assert life.reap(desk.db, 5) == [claim.job_id]


def take_over(desk: Desk, claim: life.Claim) -> None:
    take_back(desk, claim)
    assert desk.claim("worker-2").job_id == claim.job_id


def take_over_alone(desk: Desk, claim: life.Claim) -> None:
    take_back(desk, claim)
    assert desk.claim(claim.worker).job_id == claim.job_id


def give_to_another(desk: Desk, claim: life.Claim) -> None:
    desk.set(claim.job_id, lease_worker="worker-2")


def finish(desk: Desk, claim: life.Claim) -> None:
    assert life.fail(desk.db, claim, FAILURE) is Status.FAILED


def contents(desk: Desk) -> list[tuple[object, ...]]:
    with desk.db.reading() as session:
        return [
            tuple(row)
            for table in (JobRow, JobEventRow, JobAttemptRow, ArtifactRow, BlobRow)
            for row in session.execute(select(*table.__table__.c).order_by(*table.__table__.primary_key)).all()
        ]


@pytest.mark.parametrize("taking", [take_back, take_over, take_over_alone, give_to_another, finish])
@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_the_job_writes_nothing(
    desk: Desk, write: str, taking: Callable[[Desk, life.Claim], None]
) -> None:
    desk.submit()
    claim = desk.claim("worker-1")
    taking(desk, claim)
    before = contents(desk)
    with pytest.raises(life.FencedError):
        WRITES[write](desk, claim)
    assert contents(desk) == before


def test_a_lease_that_ran_out_unnoticed_can_be_renewed(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.expire(job_id)
    assert life.renew(desk.db, claim, LEASE) is Status.RUNNING
    assert life.reap(desk.db, 5) == []


def test_a_log_is_kept_even_when_the_job_was_lost(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim("worker-1")
    take_over(desk, claim)
    life.save_log(desk.db, claim, "out\0put \ud800", truncated=True)
    with desk.db.reading() as session:
        first, second = service.attempts(session, job_id)
    assert (first.log, first.log_truncated, first.outcome) == ("out\ufffdput \ufffd", True, "lost")
    assert (second.log, second.log_truncated, second.outcome) == ("", False, None)


# What the user wants


@pytest.mark.parametrize("status", sorted(LEASED))
def test_renewing_tells_what_the_user_wants(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status)
    assert life.renew(desk.db, claim, LEASE) is status


def test_cancelling_what_waits_is_at_once(desk: Desk) -> None:
    job_id = desk.submit()
    assert desk.cancel(job_id) is Status.CANCELLED
    assert desk.statuses(job_id) == [Status.QUEUED, Status.CANCELLED]
    assert desk.row(job_id).finished_at is not None
    assert life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE) is None


def test_cancelling_a_paused_job_is_at_once(desk: Desk) -> None:
    job_id = desk.submit()
    desk.set(job_id, status=Status.PAUSED)
    assert desk.cancel(job_id) is Status.CANCELLED


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSING])
def test_cancelling_what_runs_asks_its_worker(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status)
    assert desk.cancel(job_id) is Status.CANCELLING
    assert life.renew(desk.db, claim, LEASE) is Status.CANCELLING
    assert desk.cancel(job_id) is Status.CANCELLING
    assert desk.statuses(job_id) == [Status.QUEUED, Status.RUNNING, Status.CANCELLING]
    assert life.stop(desk.db, claim, Request.CANCEL) is Status.CANCELLED


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_what_has_ended_cannot_be_cancelled(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    desk.set(job_id, status=status)
    with pytest.raises(IllegalActionError, match=status):
        desk.cancel(job_id)
    assert desk.row(job_id).status is status


def test_nobody_cancels_the_job_of_another(desk: Desk) -> None:
    job_id = desk.submit("ann")
    with pytest.raises(NotFoundError):
        desk.cancel(job_id, owner="bob")


def test_cancelling_and_claiming_at_once_leave_one_truth(desk: Desk) -> None:
    jobs = [desk.submit() for _ in range(12)]

    def claim_all(_: int) -> list[life.Claim]:
        claimed = []
        while claim := life.claim(desk.db, queues=["cpu"], worker="w", lease_seconds=LEASE):
            claimed.append(claim)
        return claimed

    with ThreadPoolExecutor(6) as pool:
        cancelling = pool.map(desk.cancel, jobs)
        claims = {claim.job_id: claim for taken in pool.map(claim_all, range(3)) for claim in taken}
        outcomes = dict(zip(jobs, cancelling, strict=True))
    for job_id in jobs:
        row = desk.row(job_id)
        assert outcomes[job_id] is row.status
        assert row.status is (Status.CANCELLING if job_id in claims else Status.CANCELLED)


def test_cancelling_waits_for_a_claim_that_was_first(postgres_desk: Desk) -> None:
    job_id = postgres_desk.submit()
    row = postgres_desk.row(job_id)
    with ThreadPoolExecutor(1) as pool:
        with postgres_desk.db.writing() as session:
            log.change_status(session, row, Status.RUNNING, "claimed")
            cancelling = pool.submit(postgres_desk.cancel, job_id)
            wait_until(lambda: waits_for_lock(postgres_desk.db))
        assert cancelling.result(timeout=10) is Status.CANCELLING


# Letting go


@pytest.mark.parametrize("request_", Request)
@pytest.mark.parametrize("status", sorted(LEASED))
def test_a_stopped_job_goes_where_the_graph_says(desk: Desk, status: Status, request_: Request) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status)
    assert life.stop(desk.db, claim, request_) is AFTER_LOSS[status]
    row = desk.row(job_id)
    assert (row.status, row.losses, row.lease_worker, row.lease_until) == (AFTER_LOSS[status], 0, None, None)
    *_, stopped, changed = desk.events(job_id)
    assert stopped.event == Stopped(request=request_)
    assert isinstance(changed.event, StatusChanged)
    assert changed.event.status is AFTER_LOSS[status]


@pytest.mark.parametrize(("status", "outcome"), [
    (Status.RUNNING, "drained"), (Status.PAUSING, "paused"), (Status.CANCELLING, "cancelled"),
])
def test_a_stopped_attempt_tells_how_it_ended(desk: Desk, status: Status, outcome: str) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status)
    life.stop(desk.db, claim, Request.DRAIN)
    with desk.db.reading() as session:
        [attempt] = service.attempts(session, job_id)
    assert attempt.outcome == outcome
    assert attempt.ended_at is not None


def test_a_drained_job_is_rung_at_once_and_resumed(desk: Desk) -> None:
    job_id = desk.submit()
    life.stop(desk.db, desk.claim(), Request.DRAIN)
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == [(job_id, "cpu")]
    assert desk.claim("worker-2").attempt == 2


def test_failing_keeps_the_failure(desk: Desk) -> None:
    job_id = desk.submit()
    assert life.fail(desk.db, desk.claim(), FAILURE) is Status.FAILED
    row = desk.row(job_id)
    assert row.error is not None
    assert Failure.model_validate(row.error) == FAILURE
    *_, failed, changed = desk.events(job_id)
    assert failed.event == Failed(failure=FAILURE)
    assert changed.ends_job
    assert row.finished_at is not None


def test_succeeding_keeps_report_and_files(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    bundle, onnx = model(desk, claim, b"zip"), model(desk, claim, b"onnx")
    assert life.succeed(desk.db, claim, FINISHED, [("bundle", bundle), ("onnx", onnx)]) is Status.SUCCEEDED
    row = desk.row(job_id)
    assert (row.report or {})["label_names"] == ["a", "b"]
    assert row.percent == 100
    with desk.db.reading() as session:
        files = service.files(session, job_id)
    assert {role: artifact.id for role, artifact in files.items()} == {"bundle": bundle, "onnx": onnx}
    assert files["onnx"].sha256 != files["bundle"].sha256
    *_, finished, changed = desk.events(job_id)
    assert finished.event == FINISHED
    assert changed.ends_job


def test_succeeding_again_after_a_lost_answer_keeps_the_results(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    bundle = model(desk, claim)
    life.succeed(desk.db, claim, FINISHED, [("bundle", bundle)])
    with pytest.raises(life.FencedError):  # what a worker meets whose commit went through unheard
        life.succeed(desk.db, claim, FINISHED, [("bundle", bundle)])
    with desk.db.reading() as session:
        assert service.files(session, claim.job_id)["bundle"].id == bundle
    assert desk.row(claim.job_id).status is Status.SUCCEEDED


@pytest.mark.parametrize("status", sorted(LEASED))
def test_a_job_that_got_there_first_succeeds_whatever_was_asked(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status)
    assert life.succeed(desk.db, claim, FINISHED, []) is Status.SUCCEEDED


def test_finishing_is_all_or_nothing(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    bundle = model(desk, claim)
    before = contents(desk)
    with pytest.raises(IntegrityError):
        life.succeed(desk.db, claim, FINISHED, [("bundle", bundle), ("onnx", "art_that_does_not_exist")])
    assert contents(desk) == before
    assert life.succeed(desk.db, claim, FINISHED, [("bundle", bundle)]) is Status.SUCCEEDED


# Loss


@pytest.mark.parametrize("status", sorted(LEASED))
def test_the_reaper_takes_a_job_where_the_graph_says(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    desk.claim()
    desk.set(job_id, status=status, lease_until=now(-0.1))
    assert life.reap(desk.db, max_losses=5) == [job_id]
    row = desk.row(job_id)
    assert (row.status, row.losses, row.lease_worker, row.lease_until) == (AFTER_LOSS[status], 1, None, None)
    assert life.reap(desk.db, max_losses=5) == []


def test_the_time_that_attempts_took_comes_with_the_next_claim(desk: Desk) -> None:
    job_id = desk.submit()
    began = datetime.now(UTC) - timedelta(hours=9)
    assert desk.claim().used_seconds == 0
    desk.date_attempt(job_id, 1, began)
    desk.set(job_id, lease_until=began + timedelta(seconds=40))
    assert life.reap(desk.db, max_losses=5) == [job_id], "hours later"
    claim = desk.claim()
    assert claim.used_seconds == 40
    desk.date_attempt(job_id, 2, datetime.now(UTC) - timedelta(hours=1))
    life.stop(desk.db, claim, Request.DRAIN)
    assert 3640 <= desk.claim().used_seconds < 7200


def test_the_reaper_leaves_what_is_alive(desk: Desk) -> None:
    desk.submit()
    desk.claim()
    assert life.reap(desk.db, max_losses=5) == []


def test_a_job_that_is_lost_too_often_fails(desk: Desk) -> None:
    job_id = desk.submit()
    statuses = []
    for _ in range(3):
        take = desk.claim()
        desk.expire(job_id)
        assert life.reap(desk.db, max_losses=3) == [take.job_id]
        statuses.append(desk.row(job_id).status)
    assert statuses == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    row = desk.row(job_id)
    error = Failure.model_validate(row.error)
    assert (error.code, error.blame, error.retryable, row.losses) == ("worker_lost", Blame.INFRASTRUCTURE, True, 3)
    assert "3 times" in error.message
    assert desk.events(job_id)[-1].ends_job


def test_a_crashed_trainer_counts_like_a_lost_worker(desk: Desk) -> None:
    job_id = desk.submit()
    assert life.lose(desk.db, desk.claim(), "the trainer was killed by signal 9", max_losses=2) is Status.QUEUED
    assert life.lose(desk.db, desk.claim(), "the trainer was killed by signal 9", max_losses=2) is Status.FAILED
    assert "signal 9" in Failure.model_validate(desk.row(job_id).error).message


def test_what_the_user_cancelled_is_cancelled_however_often_it_was_lost(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    desk.cancel(job_id)
    assert life.lose(desk.db, claim, "crashed", max_losses=1) is Status.CANCELLED


def test_reapers_do_not_meet(desk: Desk) -> None:
    jobs = {desk.submit() for _ in range(20)}
    for _ in jobs:
        desk.claim()
    for job_id in jobs:
        desk.expire(job_id)
    with ThreadPoolExecutor(5) as pool:
        reaped = [job_id for found in pool.map(lambda _: life.reap(desk.db, 5), range(5)) for job_id in found]
    assert sorted(reaped) == sorted(jobs)
    assert {desk.row(job_id).losses for job_id in jobs} == {1}


# Bells


def test_a_submitted_job_counts_as_rung(desk: Desk) -> None:
    job_id = desk.submit()
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == []
    desk.set(job_id, rung_at=now(-31))
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == [(job_id, "cpu")]
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == []


def test_no_more_bells_than_there_are_slots(desk: Desk) -> None:
    for _ in range(3):
        desk.set(desk.submit(), rung_at=None)
    assert [len(life.take_rings(desk.db, older_than_seconds=30, limit=2)) for _ in range(3)] == [2, 1, 0]


def test_only_what_waits_is_rung(desk: Desk) -> None:
    job_id = desk.submit()
    desk.claim()
    desk.set(job_id, rung_at=None)
    assert life.take_rings(desk.db, older_than_seconds=30, limit=5) == []


# The log


def test_events_come_back_as_they_went(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    sent: list[TrainerEvent] = [
        PhaseStarted(phase=Phase.DISTILLING, total_steps=10), NOTE,
        Measured(phase=Phase.DISTILLING, step=2**62, values={}),
        Noted(code="odd", message="\\u0000 stays, \0 goes", data={"deep": [{"\0": "\0\0"}]}),
    ]
    assert life.record(desk.db, claim, sent) == 6
    recorded = desk.events(job_id)[2:]
    assert [line.event for line in recorded[:3]] == sent[:3]
    assert recorded[3].event == Noted(
        code="odd", message="\\u0000 stays, \ufffd goes", data={"deep": [{"\ufffd": "\ufffd\ufffd"}]}
    )
    assert {line.attempt for line in recorded} == {1}
    assert recorded[0].at.utcoffset() is not None


def test_the_log_is_read_from_any_place(desk: Desk) -> None:
    job_id = desk.submit()
    life.record(desk.db, desk.claim(), [NOTE] * 5)
    with desk.db.reading() as session:
        assert [row.seq for row in service.events_after(session, job_id, 3, limit=2)] == [4, 5]
        assert service.events_after(session, job_id, 7) == []


def test_nothing_to_record(desk: Desk) -> None:
    desk.submit()
    assert life.record(desk.db, desk.claim(), []) == 2


def test_the_log_has_no_gaps_under_many_writers(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()

    def write(number: int) -> int:
        events = [Noted(code="n", message=f"{number}.{part}") for part in range(number % 3 + 1)]
        return life.record(desk.db, claim, events)

    with ThreadPoolExecutor(8) as pool:
        last = max(pool.map(write, range(60)))
    recorded = desk.events(job_id)
    assert [line.seq for line in recorded] == list(range(1, last + 1))
    assert last == 2 + sum(number % 3 + 1 for number in range(60))
    assert [line.at for line in recorded] == sorted(line.at for line in recorded)
    assert desk.row(job_id).last_seq == last


def test_a_watcher_who_reads_while_others_write_misses_nothing(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    seen: list[int] = []

    def watch(until: int) -> None:
        while not seen or seen[-1] < until:
            with desk.db.reading() as session:
                seen.extend(row.seq for row in service.events_after(session, job_id, seen[-1] if seen else 0))

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch, 102)
        list(pool.map(lambda _: life.record(desk.db, claim, [NOTE]), range(100)))
        watching.result(timeout=60)
    assert seen == list(range(1, 103))


def test_progress_is_on_the_row(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    life.record(desk.db, claim, [
        PhaseStarted(phase=Phase.DISTILLING, total_steps=10),
        Progressed(
            phase=Phase.DISTILLING, step=4, total_steps=10, percent=35.5, samples_per_second=10.5, eta_seconds=3.0
        ),
        Measured(phase=Phase.DISTILLING, step=4, values={"loss": 0.5, "learning_rate": 0.1}),
        Measured(phase=Phase.DISTILLING, step=5, values={"loss": math.nan}),
    ])
    row = desk.row(job_id)
    assert (row.phase, row.step, row.total_steps, row.percent) == (Phase.DISTILLING, 4, 10, 35.5)
    assert (row.samples_per_second, row.eta_seconds) == (10.5, 3.0)
    assert row.latest_metrics == {"learning_rate": 0.1}
    life.record(desk.db, claim, [PhaseStarted(phase=Phase.EVALUATING)])
    row = desk.row(job_id)
    assert (row.phase, row.step, row.total_steps, row.percent) == (Phase.EVALUATING, 0, None, 35.5)
    life.stop(desk.db, claim, Request.DRAIN)
    row = desk.row(job_id)
    assert (row.phase, row.samples_per_second, row.eta_seconds) == (None, None, None)


def test_progress_begins_anew_where_there_is_no_checkpoint(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    life.record(desk.db, claim, [Progressed(phase=Phase.DISTILLING, step=4, percent=35.5)])
    life.lose(desk.db, claim, "crashed", 5)
    assert desk.row(job_id).percent == 35.5
    claim = desk.claim()
    assert desk.row(job_id).percent == 0
    life.record(desk.db, claim, [Progressed(phase=Phase.DISTILLING, step=4, percent=35.5)])
    life.save_checkpoint(desk.db, claim, CHECKPOINT, state(desk, claim))
    life.lose(desk.db, claim, "crashed", 5)
    desk.claim()
    assert desk.row(job_id).percent == 35.5


def test_metrics_of_repeated_steps_replace_those_before(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    life.record(desk.db, claim, [
        Measured(phase=Phase.DISTILLING, step=step, values={"loss": 1.0 / step}) for step in (1, 2, 3)
    ])
    life.lose(desk.db, claim, "crashed", 5)
    claim = desk.claim()
    life.record(desk.db, claim, [
        Measured(phase=Phase.DISTILLING, step=3, values={"loss": 8.0}),
        Measured(phase=Phase.DISTILLING, step=3, values={"loss": 9.0}),
        Measured(phase=Phase.DISTILLING, step=4, values={"loss": math.inf}),
        Measured(phase=Phase.CONTROL, step=1, values={"loss": 2.0}),
    ])
    with desk.db.reading() as session:
        assert service.metrics(session, job_id) == [
            MetricSeries(name="loss", phase="control", points=[(1, 2.0)]),
            MetricSeries(name="loss", phase="distilling", points=[(1, 1.0), (2, 0.5), (3, 9.0), (4, None)]),
        ]


# Checkpoints


def test_a_file_may_be_stored_while_its_job_changes(postgres_desk: Desk) -> None:
    postgres_desk.submit()
    claim = postgres_desk.claim()
    with ThreadPoolExecutor(1) as pool, postgres_desk.db.writing() as session:
        session.scalars(queries.held_for_change(claim.job_id, claim.attempt, claim.worker)).one()
        assert pool.submit(state, postgres_desk, claim).result(timeout=10)


def blobs(desk: Desk) -> set[str]:
    sweep(desk.db, desk.stores)
    with desk.db.reading() as session:
        assert session.scalars(select(LooseBlobRow.id)).all() == []
        return set(session.scalars(select(BlobRow.id)))


def stored_files(desk: Desk, blob_ids: set[str]) -> set[str]:
    folder = desk.stores.files.folder  # type: ignore[attr-defined]  # what is really on the disk
    return {path.name for path in folder.rglob("*") if path.is_file()} & blob_ids


@pytest.mark.embedded
def test_a_new_checkpoint_replaces_the_one_before(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    first = state(desk, claim, b"first")
    life.save_checkpoint(desk.db, claim, CHECKPOINT, first)
    before = blobs(desk)
    second = state(desk, claim, b"second")
    life.save_checkpoint(desk.db, claim, CHECKPOINT, second)
    after = blobs(desk)
    assert len(after) == len(before)
    assert stored_files(desk, before | after) == after
    with desk.db.reading() as session:
        assert session.get(ArtifactRow, first) is None
    life.lose(desk.db, claim, "crashed", 5)
    assert desk.claim().checkpoint == second
    assert desk.row(job_id).checkpoint_artifact_id == second


@pytest.mark.embedded
def test_the_newest_checkpoints_are_kept_and_the_last_is_resumed_from(desk: Desk) -> None:
    job_id = desk.submit()
    made = []
    for step in range(1, 5):
        claim = desk.claim()
        made.append(state(desk, claim, b"%d" % step))
        event = CHECKPOINT.model_copy(update={"step": step})
        life.save_checkpoint(desk.db, claim, event, made[-1], num_kept=2)
        life.lose(desk.db, claim, "crashed", 9)
    with desk.db.reading() as session:
        stored = service.checkpoints(session, job_id)
    assert [(row.body["step"], row.attempt, artifact.id) for row, artifact in stored] == [
        (3, 3, made[2]), (4, 4, made[3]),
    ]
    kept = blobs(desk)
    assert stored_files(desk, kept) == kept
    assert desk.claim().checkpoint == made[3]
    desk.cancel(job_id)


def test_whoever_was_fenced_drops_no_checkpoint_that_is_kept(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    first = state(desk, claim, b"first")
    life.save_checkpoint(desk.db, claim, CHECKPOINT, first, num_kept=2)
    life.lose(desk.db, claim, "crashed", 9)
    following = desk.claim()
    life.save_checkpoint(desk.db, following, CHECKPOINT, state(desk, following, b"second"), num_kept=2)
    with pytest.raises(life.FencedError):  # the first commit worked, and its answer was lost
        life.save_checkpoint(desk.db, claim, CHECKPOINT, first, num_kept=2)
    with desk.db.reading() as session:
        assert first in {artifact.id for _, artifact in service.checkpoints(session, claim.job_id)}


def test_a_checkpoint_of_the_same_bytes_survives_its_twin(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    for _ in range(2):
        artifact_id = state(desk, claim, b"same")
        life.save_checkpoint(desk.db, claim, CHECKPOINT, artifact_id)
    sweep(desk.db, desk.stores)
    with desk.db.reading() as session:
        artifact = session.get_one(ArtifactRow, artifact_id)
    assert b"".join(desk.stores.files.read(artifact.blob_id)) == b"same"


ENDS: dict[str, Callable[[Desk, life.Claim], object]] = {
    "succeed": lambda desk, claim: life.succeed(desk.db, claim, FINISHED, [("bundle", model(desk, claim))]),
    "fail": lambda desk, claim: life.fail(desk.db, claim, FAILURE),
    "cancel": lambda desk, claim: (desk.cancel(claim.job_id), life.stop(desk.db, claim, Request.CANCEL)),
    "cancel when queued": lambda desk, claim: (
        life.stop(desk.db, claim, Request.DRAIN), desk.cancel(claim.job_id)
    ),
    "lost too often": lambda desk, claim: life.lose(desk.db, claim, "crashed", 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_ended_job_keeps_its_results_only(desk: Desk, end: str) -> None:
    job_id = desk.submit()
    inputs = blobs(desk)
    claim = desk.claim()
    life.save_checkpoint(desk.db, claim, CHECKPOINT, state(desk, claim))
    model(desk, claim, b"stored, but never made a result")
    ENDS[end](desk, claim)
    assert desk.row(job_id).status in TERMINAL
    assert desk.row(job_id).checkpoint_artifact_id is None
    with desk.db.reading() as session:
        results = {artifact.blob_id for artifact in service.files(session, job_id).values()}
    assert len(results) == (1 if end == "succeed" else 0)
    assert blobs(desk) == inputs | results


# The graph


@settings(max_examples=64, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edge=st.tuples(st.sampled_from(Status), st.sampled_from(Status)))
def test_a_status_follows_another_only_as_the_graph_says(desk: Desk, edge: tuple[Status, Status]) -> None:
    current, following = edge
    job_id = desk.submit()
    desk.set(job_id, status=current)
    row = desk.row(job_id)
    if may_follow(current, following):
        with desk.db.writing() as session:
            assert log.change_status(session, row, following, "why").status is following
        assert desk.statuses(job_id) == [Status.QUEUED, following]
    else:
        with pytest.raises(log.IllegalTransitionError), desk.db.writing() as session:
            log.change_status(session, row, following, "why")
        assert desk.row(job_id).status is current
        assert desk.statuses(job_id) == [Status.QUEUED]


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_what_has_ended_stays_as_it_is(desk: Desk, status: Status) -> None:
    assert not TRANSITIONS[status]
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=status, lease_until=now(-100))
    before = contents(desk)
    for write in WRITES.values():
        with pytest.raises(life.FencedError):
            write(desk, claim)
    assert life.reap(desk.db, 5) == []
    assert contents(desk) == before


def test_a_status_that_the_graph_does_not_know_is_refused(desk: Desk) -> None:
    desk.submit()
    with pytest.raises(IntegrityError), desk.db.writing() as session:
        session.execute(text("UPDATE jobs SET status = 'sleeping'"))
