"""Statements about jobs. API and worker share them.

Locks are `key_share`: rows that point to a job can be added meanwhile, or whoever stores a file of the job while
holding its blob could wait for whoever ends the job and wants that blob.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Subquery, and_, false, func, or_, select, tuple_
from sqlalchemy.orm import aliased, defer

from app.artifacts.models import ArtifactRow
from app.jobs.models import JobAttemptRow, JobEventRow, JobFileRow, JobMetricRow, JobRow
from app.kit.clock import now
from app.kit.database import storable
from app.kit.paging import after_cursor
from stillhouse.contract.status import LEASED, Kind, Status

_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


def owned(owner: str, job_id: str, kind: Kind = "job") -> Select[JobRow]:
    """The job (or the plan), if it is the owner's."""
    return select(JobRow).where(JobRow.id == job_id, JobRow.owner == owner, JobRow.kind == kind)


def listed(
    owner: str, *, status: Status | None, name: str | None, labels: Mapping[str, str], cursor: str | None,
) -> Select[JobRow]:
    """The owner's jobs, newest first. Raises InvalidCursorError."""
    labelled = (_labelled(*label) for label in labels.items())
    statement = select(JobRow).where(JobRow.owner == owner, JobRow.kind == "job", *labelled)
    if status is not None:
        statement = statement.where(JobRow.status == status)
    if name is not None:
        statement = statement.where(JobRow.name == name)
    if cursor is not None:
        statement = statement.where(after_cursor(JobRow.created_at, JobRow.id, cursor))
    return statement.order_by(JobRow.created_at.desc(), JobRow.id.desc())


def _labelled(key: str, value: str) -> ColumnElement[bool]:
    # The key becomes part of a JSON path; one that no job can have must not reach it.
    if not _LABEL_KEY.fullmatch(key):
        return false()
    found: ColumnElement[str] = JobRow.labels[key].as_string()
    return found == storable(value)


def events_after(job_id: str, seq: int) -> Select[JobEventRow]:
    """The job's log after a place in it."""
    return select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > seq).order_by(JobEventRow.seq)


def metrics(job_id: str) -> Select[JobMetricRow]:
    """Every value of every metric, by phase, name and step."""
    return select(JobMetricRow).where(JobMetricRow.job_id == job_id).order_by(
        JobMetricRow.phase, JobMetricRow.name, JobMetricRow.step
    )


def attempts(job_id: str) -> Select[JobAttemptRow]:
    """The job's attempts with their logs, oldest first."""
    return select(JobAttemptRow).where(JobAttemptRow.job_id == job_id).order_by(JobAttemptRow.attempt)


def attempts_without_logs(job_id: str) -> Select[JobAttemptRow]:
    """The job's attempts, oldest first, without what their trainers printed."""
    return attempts(job_id).options(defer(JobAttemptRow.log, raiseload=True))


def files(job_id: str) -> Select[str, ArtifactRow]:
    """Roles and artifacts of the job's results."""
    return select(JobFileRow.role, ArtifactRow).join(ArtifactRow, ArtifactRow.id == JobFileRow.artifact_id).where(
        JobFileRow.job_id == job_id
    ).order_by(JobFileRow.role)


def owned_for_change(owner: str, job_id: str, kind: Kind = "job") -> Select[JobRow]:
    """The job (or the plan), if it is the owner's, locked."""
    return owned(owner, job_id, kind).with_for_update(key_share=True)


def held_for_change(job_id: str, attempt: int, worker: str) -> Select[JobRow]:
    """The job, if this attempt of this worker still owns it, locked."""
    return select(JobRow).where(held(job_id, attempt, worker)).with_for_update(key_share=True)


def held(job_id: str, attempt: int, worker: str) -> ColumnElement[bool]:
    """Whether this attempt of this worker still owns the job: the fence."""
    return and_(
        JobRow.id == job_id, JobRow.attempt == attempt, JobRow.lease_worker == worker, JobRow.status.in_(LEASED),
    )


def _running_by_owner() -> Subquery:
    """Jobs and plans that run, counted apart: a plan takes no slot of training."""
    running = aliased(JobRow)
    return (
        select(running.owner, running.kind, func.count().label("num_running"))
        .where(running.status.in_(LEASED))
        .group_by(running.owner, running.kind)
        .subquery("running")
    )


def _best_queued(queues: Iterable[str]) -> Select[JobRow]:
    """The queued job that is to run next: priority, then the owner with the fewest running jobs, then age."""
    running = _running_by_owner()
    return (
        select(JobRow)
        .outerjoin(running, and_(running.c.owner == JobRow.owner, running.c.kind == JobRow.kind))
        .where(JobRow.status == Status.QUEUED, JobRow.queue.in_(list(queues)))
        .order_by(
            JobRow.priority.desc(), func.coalesce(running.c.num_running, 0), JobRow.created_at, JobRow.id,
        )
        .limit(1)
    )


def next_width(queues: Iterable[str], max_devices: int) -> Select[int]:
    """How many devices the job takes that is to run next, of those that take no more than these."""
    return _best_queued(queues).where(JobRow.num_devices <= max_devices).with_only_columns(JobRow.num_devices)


def next_queued(queues: Iterable[str], num_devices: int) -> Select[JobRow]:
    """The queued job that is to run next, of those that take just so many devices.

    The row is locked. One that another has locked is passed over.
    """
    of_width = _best_queued(queues).where(JobRow.num_devices == num_devices)
    return of_width.with_for_update(of=JobRow, skip_locked=True)


def any_queued(queues: Iterable[str], num_devices: int) -> Select[str]:
    """Id of a queued job that takes just so many devices, locked by another or not."""
    return select(JobRow.id).where(
        JobRow.status == Status.QUEUED, JobRow.queue.in_(list(queues)), JobRow.num_devices == num_devices
    ).limit(1)


def still_queued(job_id: str) -> Select[JobRow]:
    """The job, if it is queued once whoever has it locked lets go; locked then."""
    return select(JobRow).where(JobRow.id == job_id, JobRow.status == Status.QUEUED).with_for_update()


def queued_before(
    queue: str, *, owner: str, kind: Kind, priority: int, created_at: datetime, job_id: str
) -> Select[int]:
    """Number of queued jobs that are to run before this one, as things stand."""
    running = _running_by_owner()
    own = select(func.count()).where(
        JobRow.status.in_(LEASED), JobRow.owner == owner, JobRow.kind == kind
    ).scalar_subquery()
    place = tuple_(func.coalesce(running.c.num_running, 0), JobRow.created_at, JobRow.id)
    earlier = or_(
        JobRow.priority > priority, and_(JobRow.priority == priority, place < tuple_(own, created_at, job_id)),
    )
    return (
        select(func.count())
        .select_from(JobRow)
        .outerjoin(running, and_(running.c.owner == JobRow.owner, running.c.kind == JobRow.kind))
        .where(JobRow.status == Status.QUEUED, JobRow.queue == queue, earlier)
    )


def expired(limit: int) -> Select[JobRow]:
    """Jobs whose worker let the lease run out, locked; those that another reaper has locked are passed over."""
    return (
        select(JobRow)
        .where(JobRow.status.in_(LEASED), JobRow.lease_until < now())
        .order_by(JobRow.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )


def unrung(older_than_seconds: float, limit: int, kind: Kind = "job") -> Select[str]:
    """Ids of queued jobs (or plans) for which no bell was rung lately, locked."""
    return (
        select(JobRow.id)
        .where(
            JobRow.status == Status.QUEUED, JobRow.kind == kind,
            or_(JobRow.rung_at.is_(None), JobRow.rung_at <= now(-older_than_seconds)),
        )
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )


def old_plans(older_than_seconds: float, limit: int) -> Select[str]:
    """Ids of plans that no worker is making and that were asked for so long ago, locked."""
    return (
        select(JobRow.id)
        .where(JobRow.kind == "plan", JobRow.created_at < now(-older_than_seconds), JobRow.status.not_in(LEASED))
        .order_by(JobRow.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def count_by_status(kind: Kind = "job") -> Select[Status, int]:
    """Number of jobs (or plans) in each status that has any."""
    return select(JobRow.status, func.count()).where(JobRow.kind == kind).group_by(JobRow.status)


def oldest_queued() -> Select[datetime | None]:
    """When the job that has waited longest was queued; null when none waits."""
    return select(func.min(JobRow.queued_at)).where(JobRow.status == Status.QUEUED, JobRow.kind == "job")
