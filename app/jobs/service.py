"""The API's side of a job. Every function works in the caller's transaction."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.artifacts.models import ArtifactRow
from app.jobs import log, queries
from app.jobs.models import JobAttemptRow, JobEventRow, JobRow
from app.jobs.schemas import JobChange
from app.kit import logs
from app.kit.clock import now
from app.kit.ids import new_id
from app.kit.paging import Slice, cut
from app.quotas import service as quotas
from app.quotas.queries import num_running as num_running_of
from stillhouse.contract.events import Noted, StatusChanged
from stillhouse.contract.failures import (
    IllegalActionError,
    InvalidRequestError,
    NotFoundError,
    UnknownArtifactError,
)
from stillhouse.contract.resources import MetricSeries, QueuePlace
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.spec.job import MAX_LABELS
from stillhouse.contract.status import HEEDED, LEASED, TERMINAL, Action, Keep, Kind, Status, actions

_CANCELLED = "cancelled by the user"
_DONE = {Action.CANCEL: "cancelled", Action.PAUSE: "paused", Action.RESUME: "resumed", Action.RETRY: "retried"}


def submit(
    session: Session, *, owner: str, spec: JobSpec, raw: dict[str, Any], queue: str, kind: Kind = "job",
    max_running: int | None = None, retried: JobRow | None = None,
) -> JobRow:
    """Add a queued job (or plan) and the first line of its log. `raw` is the spec as it was sent.

    `max_running` is the limit of running jobs that its key has in place of the service's. One that retries another is
    called, labelled and ranked as that one is. The id of the request travels with the job, to the lines of its workers
    and trainers.

    Ring after the commit: the row counts as rung already. Raises UnknownArtifactError.
    """
    row: JobRow = session.scalars(queries.insertion(), {
        "id": new_id(kind), "kind": kind, "owner": owner, "spec": raw, "spec_version": spec.version, "queue": queue,
        "name": retried.name if retried else spec.name, "labels": retried.labels if retried else spec.labels,
        "priority": _priority(spec, kind, retried), "retry_of": retried.id if retried else None,
        "num_devices": spec.devices if kind == "job" else 1,  # preflight alone runs in one process
        "max_running": max_running,
    }).one()
    _hold_inputs(session, row, spec)
    reason = f"a retry of {retried.id}" if retried else "submitted"
    first = StatusChanged(status=Status.QUEUED, reason=reason, request_id=logs.request_id())
    log.append(session, row, row.created_at, [first])
    return row


def _priority(spec: JobSpec, kind: Kind, retried: JobRow | None) -> int:
    if kind == "plan":  # somebody waits for each of them
        return 0
    return retried.priority if retried else spec.priority


def _hold_inputs(session: Session, row: JobRow, spec: JobSpec) -> None:
    """Have the job hold the artifacts that its spec names: none of them can be deleted from now on."""
    named = spec.artifacts()
    if not named:
        return
    asked = {"job_id": row.id, "owner": row.owner, "ids": list(set(named.values()))}
    held = set(session.connection().scalars(queries.input_insertion(), asked))
    for pointer, artifact_id in named.items():
        if artifact_id not in held:
            raise UnknownArtifactError(param=pointer)


def find(session: Session, owner: str, job_id: str, kind: Kind = "job") -> JobRow:
    """The owner's job (or plan). Raises NotFoundError."""
    row = session.scalars(queries.one(), {"owner": owner, "id": job_id, "kind": kind}).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def page(
    session: Session, owner: str, *, status: Status | None = None, name: str | None = None,
    labels: Mapping[str, str] | None = None, cursor: str | None = None, limit: int = 50,
) -> Slice[JobRow]:
    """A page of the owner's jobs, newest first. Raises InvalidCursorError."""
    statement = queries.listed(owner, status=status, name=name, labels=labels or {}, cursor=cursor)
    return cut(session.scalars(statement.limit(limit + 1)).all(), limit)


def cancel(
    session: Session, owner: str, job_id: str, kind: Kind = "job", keep: Keep | None = None
) -> JobRow:
    """Cancel at once what waits; ask the worker of what runs. Asking twice changes nothing.

    To keep the best student so far, what runs is finished by its worker, and what waits with a checkpoint is queued for
    one. Whoever asked for that may still cancel without it; not the other way round, as training may have ended.
    Raises NotFoundError, or IllegalActionError when the job has ended.
    """
    row = _row_to(session, owner, job_id, Action.CANCEL, kind)
    if row.keep or row.status is Status.CANCELLING:
        return _cancel_again(session, row, keep)
    if row.status in LEASED:
        reason = "cancelled by the user; the best student so far is kept" if keep else _CANCELLED
        return log.change_status(session, row, Status.CANCELLING, reason, values={"keep": keep})
    if keep and row.checkpoint_artifact_id:
        return _queue_to_finish(session, row, keep)
    reason = f"{_CANCELLED}; there was nothing to keep yet" if keep else _CANCELLED
    return log.change_status(session, row, Status.CANCELLED, reason)


def _cancel_again(session: Session, row: JobRow, keep: Keep | None) -> JobRow:
    if keep or not row.keep:
        return row
    if row.status is Status.CANCELLING:
        return log.tell(session, row, [_noted("its best student is no longer wanted")], {"keep": None})
    return log.change_status(session, row, Status.CANCELLED, _CANCELLED, values={"keep": None})


def _queue_to_finish(session: Session, row: JobRow, keep: Keep) -> JobRow:
    """Have a worker export what the checkpoint of a waiting job holds."""
    reason = "cancelled by the user; waits for a worker to export its best student so far"
    values = {"keep": keep, "rung_at": now()}
    if row.status is Status.QUEUED:
        return log.tell(session, row, [_noted(reason)], values)
    return log.change_status(session, row, Status.QUEUED, reason, values=values)


def _noted(reason: str) -> Noted:
    return Noted(code="cancelled", message=f"The job: {reason}.")


def change(session: Session, owner: str, job_id: str, wanted: JobChange) -> JobRow:
    """Give the job another name, labels or priority; what is not given stays.

    Raises NotFoundError, InvalidRequestError when it would have too many labels, or IllegalActionError for another
    priority of a job that has ended.
    """
    row = _locked(session, owner, job_id)
    if wanted.priority != row.priority and "priority" in wanted.model_fields_set and row.status in TERMINAL:
        raise IllegalActionError(
            f"The job has {row.status} already; its priority cannot be changed.",
            allowed=actions(row.status, row.kind, row.keep),
        )
    columns = wanted.model_dump(exclude_unset=True, exclude={"labels"})
    if "labels" in wanted.model_fields_set:
        columns["labels"] = _merged(row.labels, wanted.labels)
    if columns:
        session.execute(update(JobRow).where(JobRow.id == row.id).values(columns))
        session.refresh(row)
    return row


def _merged(labels: Mapping[str, str], change: Mapping[str, str | None] | None) -> dict[str, str]:
    """The labels after a merge patch: null removes one, or all."""
    both = {**labels, **change} if change is not None else {}
    merged = {key: value for key, value in both.items() if value is not None}
    if len(merged) > MAX_LABELS:
        raise InvalidRequestError(
            f"The job would have {len(merged)} labels, of which there may be {MAX_LABELS}.", param="/labels"
        )
    return merged


def pause(session: Session, owner: str, job_id: str) -> JobRow:
    """Take a job that waits out of the queue; ask the worker of one that runs for a checkpoint and its slot.

    Asking twice changes nothing. Raises NotFoundError, or IllegalActionError when the job is being cancelled or has
    ended.
    """
    row = _row_to(session, owner, job_id, Action.PAUSE)
    if row.status in HEEDED[Action.PAUSE]:
        return row
    following = Status.PAUSING if row.status in LEASED else Status.PAUSED
    return log.change_status(session, row, following, "paused by the user")


def resume(session: Session, owner: str, job_id: str) -> JobRow:
    """Queue a paused job again, where its age counts. One that is queued or runs is left alone.

    Ring after the commit: the row counts as rung already. Raises NotFoundError, or IllegalActionError in every
    other status; one that is still pausing must be paused first.
    """
    row = _row_to(session, owner, job_id, Action.RESUME)
    if row.status in HEEDED[Action.RESUME]:
        return row
    return log.change_status(session, row, Status.QUEUED, "resumed by the user", values={"rung_at": now()})


def to_retry(session: Session, owner: str, job_id: str) -> JobRow:
    """A job that has ended, to submit its spec again. Raises NotFoundError, or IllegalActionError before its end."""
    row = find(session, owner, job_id)
    _refuse_unless_allowed(row, Action.RETRY)
    return row


def _row_to(session: Session, owner: str, job_id: str, action: Action, kind: Kind = "job") -> JobRow:
    """The owner's job (or plan), locked, when it may be asked for this, or was already."""
    row = _locked(session, owner, job_id, kind)
    _refuse_unless_allowed(row, action)
    return row


def _locked(session: Session, owner: str, job_id: str, kind: Kind = "job") -> JobRow:
    row = session.scalars(queries.owned_for_change(owner, job_id, kind)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def _refuse_unless_allowed(row: JobRow, action: Action) -> None:
    allowed = actions(row.status, row.kind, row.keep)
    if action not in allowed and row.status not in HEEDED[action]:
        stands = f"has {row.status} already" if row.status in TERMINAL else f"is {row.status}"
        raise IllegalActionError(f"The {row.kind} {stands}; it cannot be {_DONE[action]}.", allowed=allowed)


def events_after(session: Session, job_id: str, seq: int = 0, limit: int = 100) -> Sequence[JobEventRow]:
    """The job's log after a place in it, oldest first."""
    return session.scalars(queries.events_after(job_id, seq).limit(limit)).all()


def metrics(session: Session, job_id: str) -> list[MetricSeries]:
    """Every metric of the job, with its values by step."""
    rows = session.scalars(queries.metrics(job_id)).all()
    return [
        MetricSeries(name=name, phase=phase, points=[(row.step, row.value) for row in series])
        for (phase, name), series in groupby(rows, key=lambda row: (row.phase, row.name))
    ]


def attempts(session: Session, job_id: str) -> Sequence[JobAttemptRow]:
    """The job's attempts with their logs, oldest first."""
    return session.scalars(queries.attempts(job_id)).all()


def attempts_without_logs(session: Session, job_id: str) -> Sequence[JobAttemptRow]:
    """The job's attempts, oldest first."""
    return session.scalars(queries.attempts_without_logs(job_id)).all()


def checkpoints(session: Session, job_id: str) -> Sequence[tuple[JobEventRow, ArtifactRow]]:
    """What the log says of the job's stored checkpoints, oldest first, with their artifacts."""
    return session.execute(queries.checkpoints(job_id)).all()


def files(session: Session, job_id: str) -> dict[str, ArtifactRow]:
    """The job's stored results by role."""
    return dict(session.execute(queries.files(), {"job_id": job_id}).all())


def queue_place(session: Session, job: JobRow, max_running: int = 0) -> QueuePlace | None:
    """Where a queued job stands; None when it is not queued. `max_running` is the service's limit, 0 none."""
    if job.status is not Status.QUEUED:
        return None
    num_before = session.connection().scalars(queries.queued_before(), queries.place_of(job, max_running)).one()
    reason = _held_back(session, job, max_running) or _awaited(job)
    if num_before:
        or_more = " or more" if num_before == queries.MOST_COUNTED else ""
        reason = f"{num_before}{or_more} queued before it; {reason}"
    return QueuePlace(position=num_before + 1, reason=reason)


def _held_back(session: Session, job: JobRow, max_running: int) -> str | None:
    """Why workers pass the job over; None when they do not."""
    most = quotas.limit(job.max_running, max_running)
    if most is None or job.kind == "plan":
        return None
    num_running = session.scalars(num_running_of(job.owner)).one()
    if num_running < most:
        return None
    return f"waits until one of the owner's {num_running} running jobs ends, of which there may be {most}"


def _awaited(job: JobRow) -> str:
    if job.kind == "plan":
        return "waits for a worker's plan slot"
    if job.num_devices == 1:
        return f"waits for a free {job.queue} worker"
    return f"waits for a {job.queue} worker with {job.num_devices} slots, all free at once"
