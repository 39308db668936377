"""The worker's side of a job: claim, renew, record, and the ways to let go. Each is one short transaction.

Every write of a worker carries the attempt it was claimed with. When the job has been taken away meanwhile,
FencedError says so, and nothing was written.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, delete, insert, select, update
from sqlalchemy.orm import Session

from app.artifacts.service import discard_checkpoints, discard_leftovers, discard_unused
from app.jobs import log, queries
from app.jobs.models import (
    JobAttemptRow,
    JobCheckpointRow,
    JobEventRow,
    JobFileRow,
    JobInputRow,
    JobMetricRow,
    JobRow,
)
from app.kit.clock import now
from app.kit.database import Database, insert_into
from app.quotas.service import may_run
from app.soft_labels import service as soft_labels
from app.soft_labels.service import Lending
from stillhouse.contract.events import (
    CheckpointSaved,
    Failed,
    Finished,
    Measured,
    PhaseStarted,
    Planned,
    Progressed,
    SoftLabelsSaved,
    Stopped,
    TrainerEvent,
)
from stillhouse.contract.failures import Failure, StillhouseError, WorkerLostError
from stillhouse.contract.status import AFTER_LOSS, Keep, Kind, Phase, Request, Status

_REAP_LIMIT = 100
_PROGRESS = {"phase", "step", "total_steps", "percent", "samples_per_second", "eta_seconds"}
_CUT = "cancelled; the best student so far is kept"
_CUT_SHORT = "finished with the best student so far, as the job had run for as long as it may"
_STOP_REASONS = {
    Request.DRAIN: "the worker is shutting down",
    Request.PAUSE: "paused",
    Request.CANCEL: "cancelled",
    Request.FINISH: "cancelled; there was nothing to keep yet",
}


class FencedError(Exception):
    """The job is no longer this worker's: the lease ran out and another may have claimed it. Drop everything."""


class HeldUpError(Exception):
    """The database answered so late that the living may not have renewed their leases either."""


@dataclass(frozen=True)
class Claim:
    """One attempt of one worker at one job."""

    job_id: str
    kind: Kind
    owner: str
    attempt: int
    losses: int
    spec: dict[str, Any]
    worker: str
    # Artifact to resume from.
    checkpoint: str | None
    # Of the request that submitted the job: for log lines.
    request_id: str | None = None
    # The job was cancelled, and this is to be exported all the same.
    keep: Keep | None = None
    # What earlier attempts took, together.
    used_seconds: float = 0.0


def next_width(db: Database, *, queues: Iterable[str], max_devices: int, max_running: int = 0) -> int | None:
    """How many devices the best queued job takes, of those that take no more than these; None when there is none.

    To be asked before a claim: whoever has not as many free takes nothing else meanwhile, or wide jobs would wait
    behind narrow ones for ever. `max_running` is as for `claim`.
    """
    with db.reading() as session:
        return session.scalars(queries.next_width(queues, max_devices, max_running)).one_or_none()


def claim(
    db: Database, *, queues: Iterable[str], worker: str, lease_seconds: float, num_devices: int = 1,
    max_running: int = 0,
) -> Claim | None:
    """Take the best queued job of these queues that takes just so many devices, or None when there is none.

    Owners with `max_running` running jobs are passed over; 0 is no limit, and a job may have a limit of its own.
    """
    queues = list(queues)
    while True:
        with db.writing() as session:
            row = session.scalars(queries.next_queued(queues, num_devices, max_running)).one_or_none()
            if row is None:
                locked = session.scalars(queries.any_queued(queues, num_devices, max_running)).one_or_none()
                if locked is None:
                    return None
                # Not everybody who locks a row claims it: wait for this one, holding no other, or two who wait
                # could wait for each other.
                row = session.scalars(queries.still_queued(locked)).one_or_none()
            # Else another claim for the same owner was quicker, which the next round sees.
            if row is not None and may_run(session, row, max_running):
                return _begin_attempt(session, row, worker, lease_seconds)


def renew(db: Database, claim: Claim, lease_seconds: float) -> Status:
    """Prolong the lease and read what the user wants: running, pausing or cancelling. Raises FencedError."""
    with db.writing() as session:
        status = session.scalars(
            update(JobRow).where(_holds(claim)).values(lease_until=now(lease_seconds)).returning(JobRow.status)
        ).one_or_none()
    if status is None:
        raise FencedError(claim.job_id)
    return status


def kept(db: Database, claim: Claim) -> Keep | None:
    """What the user who cancelled the job wants all the same. To be asked while it is cancelling."""
    with db.reading() as session:
        return session.scalars(select(JobRow.keep).where(_holds(claim))).one_or_none()


def record(db: Database, claim: Claim, events: Sequence[TrainerEvent]) -> int:
    """Write events into the log, with the metrics and the progress they tell. Returns the last seq.

    Last words are not for here: `succeed`, `fail` and `stop` record them. Raises FencedError.
    """
    with db.writing() as session:
        return _record(session, claim, events, {})


def save_log(db: Database, claim: Claim, text: str, *, truncated: bool) -> None:
    """Keep what the trainer of this attempt printed; also after the attempt is over, or was lost."""
    with db.writing() as session:
        session.execute(
            update(JobAttemptRow)
            .where(
                JobAttemptRow.job_id == claim.job_id, JobAttemptRow.attempt == claim.attempt,
                JobAttemptRow.worker == claim.worker,
            )
            .values(log=text, log_truncated=truncated)
        )


def save_checkpoint(
    db: Database, claim: Claim, event: CheckpointSaved, artifact_id: str, *, num_kept: int = 1
) -> None:
    """Resume from this artifact from now on, record the event, and drop all but so many of the newest checkpoints.

    Raises FencedError; the artifact is dropped then.
    """
    with _writing_or_discarding(db, [artifact_id]) as session:
        seq = _record(session, claim, [event], {"checkpoint_artifact_id": artifact_id})
        session.execute(insert(JobCheckpointRow).values(job_id=claim.job_id, seq=seq, artifact_id=artifact_id))
        discard_checkpoints(session, claim.job_id, num_kept=num_kept)


def lend(db: Database, claim: Claim, keys: Sequence[str], num_to_make: int) -> Lending:
    """Lend the job soft labels, and have it make some of those that are missing. Raises FencedError."""
    with db.writing() as session:
        return soft_labels.lend(session, _held(session, claim), keys, num_to_make)


def save_soft_labels(db: Database, claim: Claim, event: SoftLabelsSaved, artifact_id: str) -> None:
    """Have other jobs find this shard of soft labels from now on, and record the event.

    Raises FencedError; the artifact is dropped then.
    """
    with _writing_or_discarding(db, [artifact_id]) as session:
        _record(session, claim, [event], {})
        soft_labels.keep(session, _held(session, claim), event, artifact_id)


def succeed(db: Database, claim: Claim, event: Finished, files: Sequence[tuple[str, str]]) -> Status:
    """End the job with its report and its files (pairs of role and artifact), all or nothing.

    It has succeeded, unless it was cancelled before its training was over. Raises FencedError; the artifacts are
    dropped then.
    """
    with _writing_or_discarding(db, [artifact_id for _, artifact_id in files]) as session:
        row = _held(session, claim)
        for role, artifact_id in files:
            session.execute(insert(JobFileRow).values(job_id=row.id, role=role, artifact_id=artifact_id))
        following, reason = _ending(row.status, event)
        return log.change_status(
            session, row, following, reason, last_words=[event],
            values={"report": event.report.model_dump(mode="json")},
        ).status


def _ending(status: Status, event: Finished) -> tuple[Status, str]:
    if event.report.interrupted is None:
        return Status.SUCCEEDED, "finished"
    # Nobody else asks for the best so far than who cancels, and the limit of run time.
    return (Status.CANCELLED, _CUT) if status is Status.CANCELLING else (Status.SUCCEEDED, _CUT_SHORT)


def plan(db: Database, claim: Claim, event: Planned) -> Status:
    """End a plan with what preflight found. Raises FencedError."""
    with db.writing() as session:
        return log.change_status(
            session, _held(session, claim), Status.SUCCEEDED, "planned", last_words=[event],
            values={"plan": json.loads(event.plan.model_dump_json())},
        ).status


def fail(db: Database, claim: Claim, failure: Failure) -> Status:
    """End the job with what went wrong. Raises FencedError."""
    with db.writing() as session:
        return _fail(session, _held(session, claim), failure)


def stop(db: Database, claim: Claim, request: Request) -> Status:
    """Let go of the job because its trainer was asked to stop. It goes where the graph says.

    A running job is queued again, a pausing one paused, a cancelling one cancelled, whatever was asked of the
    trainer; one whose best student is to be kept is queued when the worker drains. Raises FencedError.
    """
    with db.writing() as session:
        row = _held(session, claim)
        following = _after_loss(row) if request is Request.DRAIN else AFTER_LOSS[row.status]
        return log.change_status(
            session, row, following, _STOP_REASONS[request], last_words=[Stopped(request=request)],
            outcome="drained" if following is Status.QUEUED else None,
        ).status


def lose(
    db: Database, claim: Claim, reason: str, max_losses: int, failure: type[StillhouseError] = WorkerLostError
) -> Status:
    """Let go of the job because its trainer was lost: it is tried again unless that happened too often.

    It fails with the failure then. Raises FencedError.
    """
    with db.writing() as session:
        return _lose(session, _held(session, claim), reason, max_losses, failure)


def reap(db: Database, max_losses: int, patience_seconds: float = math.inf) -> list[str]:
    """Take jobs from workers whose lease has run out. Returns the jobs' ids. Any worker may do this at any time.

    Raises HeldUpError, and takes nothing, when the answer took longer than the patience.
    """
    asked_at = time.monotonic()
    with db.writing() as session:
        rows = session.scalars(queries.expired(_REAP_LIMIT)).all()
        if time.monotonic() - asked_at > patience_seconds:
            raise HeldUpError("the database was locked, or its server stood still")
        for row in rows:
            until = row.lease_until
            _lose(session, row, "the worker was lost", max_losses)
            _date_back(session, row, until)
        return [row.id for row in rows]


def forget_plans(db: Database, *, older_than_seconds: float) -> int:
    """Delete plans that were asked for so long ago, with all that belongs to them; returns how many.

    Any worker may do this at any time.
    """
    with db.writing() as session:
        found = session.scalars(queries.old_plans(older_than_seconds, _REAP_LIMIT)).all()
        if not found:
            return 0
        for plan_id in found:
            discard_leftovers(session, plan_id)
        for table in (JobInputRow, JobFileRow, JobMetricRow, JobEventRow, JobAttemptRow):
            session.execute(delete(table).where(table.job_id.in_(found)))
        session.execute(delete(JobRow).where(JobRow.id.in_(found)))
        return len(found)


def take_rings(
    db: Database, *, older_than_seconds: float, limit: int, kind: Kind = "job"
) -> list[tuple[str, str]]:
    """Queued jobs (or plans) for which nobody rang lately, as pairs of id and queue; they count as rung from now on."""
    with db.writing() as session:
        found = session.scalars(queries.unrung(older_than_seconds, limit, kind)).all()
        if not found:
            return []
        rung = update(JobRow).where(JobRow.id.in_(found)).values(rung_at=now()).returning(JobRow.id, JobRow.queue)
        return [(job_id, queue) for job_id, queue in session.execute(rung)]


def _begin_attempt(session: Session, row: JobRow, worker: str, lease_seconds: float) -> Claim:
    following, reason = Status.RUNNING, "claimed by a worker"
    if row.keep:
        following, reason = Status.CANCELLING, "claimed by a worker, to export the best student so far"
    row = log.change_status(session, row, following, reason, values={
        "attempt": JobRow.attempt + 1, "lease_worker": worker, "lease_until": now(lease_seconds),
        "started_at": case((JobRow.started_at.is_(None), now()), else_=JobRow.started_at),
        "phase": Phase.STAGING, "step": None, "total_steps": None,
        "percent": case((JobRow.checkpoint_artifact_id.is_(None), 0.0), else_=JobRow.percent),
    })
    used_seconds = 0.0 if row.attempt == 1 else _used_seconds(session, row.id)
    session.execute(insert(JobAttemptRow).values(
        job_id=row.id, attempt=row.attempt, worker=worker, started_at=now()
    ))
    return Claim(
        job_id=row.id, kind=row.kind, owner=row.owner, attempt=row.attempt, losses=row.losses, spec=row.spec,
        worker=worker, checkpoint=row.checkpoint_artifact_id, request_id=_submitted_by(session, row.id), keep=row.keep,
        used_seconds=used_seconds,
    )


def _used_seconds(session: Session, job_id: str) -> float:
    """What the attempts took that are over."""
    return sum(
        max(0.0, (attempt.ended_at - attempt.started_at).total_seconds())
        for attempt in session.scalars(queries.attempts_without_logs(job_id)) if attempt.ended_at is not None
    )


def _submitted_by(session: Session, job_id: str) -> str | None:
    first = session.scalars(queries.submission(job_id)).one_or_none()
    found: str | None = None if first is None else first.body.get("request_id")
    return found


def _holds(claim: Claim) -> ColumnElement[bool]:
    return queries.held(claim.job_id, claim.attempt, claim.worker)


@contextmanager
def _writing_or_discarding(db: Database, artifact_ids: Sequence[str]) -> Iterator[Session]:
    """A transaction around artifacts made for the job; they go when it turns out that the job is not ours."""
    try:
        with db.writing() as session:
            yield session
    except FencedError:
        # Not what the job holds: an earlier try may have been committed without our hearing of it.
        with db.writing() as session:
            discard_unused(session, artifact_ids)
        raise


def _held(session: Session, claim: Claim) -> JobRow:
    """The claimed job, locked. Raises FencedError."""
    row = session.scalars(queries.held_for_change(claim.job_id, claim.attempt, claim.worker)).one_or_none()
    if row is None:
        raise FencedError(claim.job_id)
    return row


def _fail(session: Session, row: JobRow, failure: Failure, values: Mapping[str, object] | None = None) -> Status:
    return log.change_status(
        session, row, Status.FAILED, failure.code, last_words=[Failed(failure=failure)],
        values={"error": failure.model_dump(mode="json"), **(values or {})},
    ).status


def _lose(
    session: Session, row: JobRow, reason: str, max_losses: int, failure: type[StillhouseError] = WorkerLostError
) -> Status:
    counted = {"losses": row.losses + 1}
    following = _after_loss(row)
    is_too_often = following is Status.QUEUED and row.losses + 1 >= max_losses
    if is_too_often and row.keep:  # what the user cancelled is cancelled, however often it was lost
        following, reason = Status.CANCELLED, f"cancelled; nothing was kept, as workers were lost too often: {reason}"
    elif is_too_often:
        error = failure(f"{failure.__doc__} Lost {row.losses + 1} times, at last: {reason}.")
        return _fail(session, row, error.as_failure(), counted)
    return log.change_status(session, row, following, reason, values=counted, outcome="lost").status


def _date_back(session: Session, row: JobRow, until: datetime | None) -> None:
    """Have the attempt end with its lease: until somebody noticed, hours may have passed that are none of the job's."""
    session.execute(
        update(JobAttemptRow)
        .where(JobAttemptRow.job_id == row.id, JobAttemptRow.attempt == row.attempt)
        .values(ended_at=until)
    )


def _after_loss(row: JobRow) -> Status:
    if row.status is Status.CANCELLING and row.keep and row.checkpoint_artifact_id:
        return Status.QUEUED  # for another worker to export
    return AFTER_LOSS[row.status]


def _record(session: Session, claim: Claim, events: Sequence[TrainerEvent], values: Mapping[str, object]) -> int:
    row = session.scalars(
        update(JobRow)
        .where(_holds(claim))
        .values({
            **values, **_progress(events), "last_seq": JobRow.last_seq + len(events), "last_event_at": now(),
        })
        .returning(JobRow)
    ).one_or_none()
    if row is None or row.last_event_at is None:
        raise FencedError(claim.job_id)
    log.append(session, row, row.last_event_at, events)
    _measure(session, row, [event for event in events if isinstance(event, Measured)])
    return row.last_seq


def _progress(events: Sequence[TrainerEvent]) -> dict[str, object]:
    """Columns that tell where the job stands after these events."""
    columns: dict[str, object] = {}
    for event in events:
        if isinstance(event, PhaseStarted):
            columns |= {"phase": event.phase, "step": 0, "total_steps": event.total_steps}
        elif isinstance(event, Progressed):
            columns |= event.model_dump(include=_PROGRESS)
    return columns


def _measure(session: Session, row: JobRow, measured: Sequence[Measured]) -> None:
    """Write values over those of the same step: after a resume some steps are done again."""
    points = {
        (event.phase.value, name, event.step): value if math.isfinite(value) else None
        for event in measured for name, value in event.values.items()
    }
    if not points:
        return
    _upsert(session, [
        {"job_id": row.id, "phase": phase, "name": name, "step": step, "value": value}
        for (phase, name, step), value in points.items()
    ])
    latest = row.latest_metrics | {name: value for (_, name, _), value in points.items()}
    finite = {name: value for name, value in latest.items() if value is not None}
    session.execute(update(JobRow).where(JobRow.id == row.id).values(latest_metrics=finite))


def _upsert(session: Session, rows: list[dict[str, object]]) -> None:
    statement = insert_into(session, JobMetricRow)
    session.execute(statement.on_conflict_do_update(
        index_elements=[JobMetricRow.job_id, JobMetricRow.phase, JobMetricRow.name, JobMetricRow.step],
        set_={"value": statement.excluded.value},
    ), rows)
