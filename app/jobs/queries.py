"""Statements about jobs. API and worker share them.

Locks are `key_share`: rows that point to a job can be added meanwhile, or whoever stores a file of the job while
holding its blob could wait for whoever ends the job and wants that blob.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Integer,
    Select,
    Subquery,
    and_,
    bindparam,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased, defer

from app.artifacts.models import ArtifactRow
from app.jobs.models import JobAttemptRow, JobCheckpointRow, JobEventRow, JobFileRow, JobInputRow, JobMetricRow, JobRow
from app.kit.clock import now
from app.kit.database import storable, table
from app.kit.paging import after_cursor
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import LEASED, UNENDED, Kind, Status

# A job of a later version waits for a worker of its release: this one would fail it.
_IS_READABLE = JobRow.spec_version <= JobSpec.model_fields["version"].default
# Nobody waits differently behind more, and counting them all would cost each submit to a long queue.
MOST_COUNTED = 1000
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


@cache
def insertion() -> Executable:
    """Adds a queued job (or plan), which counts as rung. To be run with the other columns of its row.

    Built once, as all that a submit runs: building costs more than running.
    """
    given = (
        "id", "kind", "owner", "spec", "spec_version", "queue", "name", "labels", "priority", "retry_of",
        "num_devices", "max_running",
    )
    columns = table(JobRow).c
    added = insert(table(JobRow)).values(
        **{name: bindparam(name, type_=columns[name].type) for name in given},
        status=Status.QUEUED, last_seq=1, queued_at=now(), rung_at=now(), last_event_at=now(),
    )
    return select(JobRow).from_statement(added.returning(*columns))


@cache
def input_insertion() -> Executable:
    """Has the job `job_id` hold those of the artifacts `ids` that are the owner's; returns their ids.

    They are locked against deletion.
    """
    columns = table(JobInputRow).c
    owned = (
        select(bindparam("job_id", type_=columns.job_id.type), ArtifactRow.id)
        .where(ArtifactRow.owner == _asked(ArtifactRow.owner), ArtifactRow.id.in_(bindparam("ids", expanding=True)))
        .with_for_update(read=True, key_share=True, of=ArtifactRow)
    )
    added = insert(table(JobInputRow)).from_select([columns.job_id, columns.artifact_id], owned)
    return added.returning(columns.artifact_id)


@cache
def one() -> Select[JobRow]:
    """The job (or the plan) `id`, if it is the `owner`'s and of this `kind`. Built once, as every look asks it."""
    return select(JobRow).where(
        JobRow.id == _asked(JobRow.id), JobRow.owner == _asked(JobRow.owner), JobRow.kind == _asked(JobRow.kind)
    )


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


def submission(job_id: str) -> Select[JobEventRow]:
    """The first event of the job's log, which tells of the request that submitted it."""
    return select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq == 1)


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


@cache
def files() -> Select[str, ArtifactRow]:
    """Roles and artifacts of the results of the job `job_id`. Built once, as `one`."""
    return select(JobFileRow.role, ArtifactRow).join(ArtifactRow, ArtifactRow.id == JobFileRow.artifact_id).where(
        JobFileRow.job_id == _asked(JobFileRow.job_id)
    ).order_by(JobFileRow.role)


def checkpoints(job_id: str) -> Select[JobEventRow, ArtifactRow]:
    """What the log says of the job's stored checkpoints, oldest first, with their artifacts."""
    return (
        select(JobEventRow, ArtifactRow)
        .join(
            JobCheckpointRow,
            and_(JobCheckpointRow.job_id == JobEventRow.job_id, JobCheckpointRow.seq == JobEventRow.seq),
        )
        .join(ArtifactRow, ArtifactRow.id == JobCheckpointRow.artifact_id)
        .where(JobCheckpointRow.job_id == job_id)
        .order_by(JobEventRow.seq)
    )


def owned_for_change(owner: str, job_id: str, kind: Kind = "job") -> Select[JobRow]:
    """The job (or the plan), if it is the owner's, locked."""
    return (
        select(JobRow)
        .where(JobRow.id == job_id, JobRow.owner == owner, JobRow.kind == kind)
        .with_for_update(key_share=True)
    )


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


def _may_run(running: Subquery, max_running: int | BindParameter[int]) -> ColumnElement[bool]:
    """Whether the owner has fewer jobs running than the job's limit, else this one; 0 is no limit. Plans have none."""
    most = func.coalesce(JobRow.max_running, max_running)
    return or_(most == 0, JobRow.kind == "plan", func.coalesce(running.c.num_running, 0) < most)


def _best_queued(queues: Iterable[str], max_running: int) -> Select[JobRow]:
    """The queued job that is to run next: the owner with the fewest running jobs, then priority, then age.

    Owners that have as many jobs running as they may are passed over.
    """
    running = _running_by_owner()
    return (
        select(JobRow)
        .outerjoin(running, and_(running.c.owner == JobRow.owner, running.c.kind == JobRow.kind))
        .where(
            JobRow.status == Status.QUEUED, JobRow.queue.in_(list(queues)), _IS_READABLE, _may_run(running, max_running)
        )
        .order_by(
            func.coalesce(running.c.num_running, 0), JobRow.priority.desc(), JobRow.created_at, JobRow.id,
        )
        .limit(1)
    )


def next_width(queues: Iterable[str], max_devices: int, max_running: int = 0) -> Select[int]:
    """How many devices the job takes that is to run next, of those that take no more than these."""
    fitting = _best_queued(queues, max_running).where(JobRow.num_devices <= max_devices)
    return fitting.with_only_columns(JobRow.num_devices)


def next_queued(queues: Iterable[str], num_devices: int, max_running: int = 0) -> Select[JobRow]:
    """The queued job that is to run next, of those that take just so many devices.

    The row is locked. One that another has locked is passed over.
    """
    of_width = _best_queued(queues, max_running).where(JobRow.num_devices == num_devices)
    return of_width.with_for_update(of=JobRow, skip_locked=True)


def any_queued(queues: Iterable[str], num_devices: int, max_running: int = 0) -> Select[str]:
    """Id of a queued job that takes just so many devices and may run, locked by another or not."""
    of_width = _best_queued(queues, max_running).where(JobRow.num_devices == num_devices)
    return of_width.with_only_columns(JobRow.id)


def still_queued(job_id: str) -> Select[JobRow]:
    """The job, if it is queued once whoever has it locked lets go; locked then."""
    return select(JobRow).where(JobRow.id == job_id, JobRow.status == Status.QUEUED).with_for_update()


@cache
def queued_before() -> Select[int]:
    """Number of queued jobs that are to run before one, up to MOST_COUNTED. To be run with `place_of` that job.

    Those of other owners that are passed over do not count. Built once: it is asked with every submit and every look
    at a queued job, and to build it takes longer than to run it.
    """
    running = _running_by_owner()
    owner = _asked(JobRow.owner)
    own = select(func.count()).where(
        JobRow.status.in_(LEASED), JobRow.owner == owner, JobRow.kind == _asked(JobRow.kind)
    ).scalar_subquery()
    place = tuple_(func.coalesce(running.c.num_running, 0), -JobRow.priority, JobRow.created_at, JobRow.id)
    its_place = tuple_(own, -_asked(JobRow.priority), _asked(JobRow.created_at), _asked(JobRow.id))
    counted = (
        select(JobRow.id)
        .outerjoin(running, and_(running.c.owner == JobRow.owner, running.c.kind == JobRow.kind))
        .where(
            JobRow.status == Status.QUEUED, JobRow.queue == _asked(JobRow.queue), place < its_place,
            or_(JobRow.owner == owner, _may_run(running, _asked(JobRow.max_running))),
        )
        .limit(bindparam("most", type_=Integer))
        .subquery("counted")
    )
    return select(func.count()).select_from(counted)


def place_of(job: JobRow, max_running: int) -> dict[str, object]:
    """What `queued_before` asks of a job; `max_running` is the service's limit, 0 none."""
    return {
        "owner": job.owner, "priority": job.priority, "kind": job.kind, "created_at": job.created_at, "id": job.id,
        "queue": job.queue, "max_running": max_running, "most": MOST_COUNTED,
    }


def _asked(column: InstrumentedAttribute[Any]) -> BindParameter[Any]:
    return bindparam(column.key, type_=column.type)


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


def standing(stalled_seconds: float) -> Select[str, Status, int, datetime | None, int, int]:
    """Jobs and plans that have not ended, by queue and status.

    Each row tells their number, when the oldest was queued, how many have been silent for longer than these seconds,
    and of how many the lease has run out.
    """
    is_leased = JobRow.status.in_(LEASED)
    return (
        select(
            JobRow.queue, JobRow.status, func.count(), func.min(JobRow.queued_at),
            func.count().filter(is_leased, JobRow.last_event_at < now(-stalled_seconds)),
            func.count().filter(is_leased, JobRow.lease_until < now()),
        )
        .where(JobRow.status.in_(UNENDED))
        .group_by(JobRow.queue, JobRow.status)
    )
