"""Statements about what workers leave in the database."""

from datetime import datetime

from sqlalchemy import Select, func, select

from app.jobs.models import JobAttemptRow, JobRow
from app.kit.clock import now
from app.retention.models import ChoreRow
from stillhouse.contract.status import LEASED, UNENDED, Status


def present() -> Select[datetime]:
    """The database's present time."""
    return select(now())


def due() -> Select[datetime]:
    """When retention is due next; whichever worker comes first then moves it on."""
    return select(func.max(ChoreRow.due_at))


def last_heard() -> Select[datetime | None]:
    """When a worker last began or ended an attempt."""
    return select(func.max(func.coalesce(JobAttemptRow.ended_at, JobAttemptRow.started_at)))


def queues() -> Select[str, int, int, int, datetime | None]:
    """Each queue with jobs or plans that have not ended.

    Its name, how many are queued, how many run, on how many workers, and when the oldest queued one was queued.
    """
    is_queued = JobRow.status == Status.QUEUED
    return (
        select(
            JobRow.queue, func.count().filter(is_queued), func.count().filter(JobRow.status.in_(LEASED)),
            func.count(JobRow.lease_worker.distinct()).filter(JobRow.lease_until > now()),
            func.min(JobRow.queued_at).filter(is_queued),
        )
        .where(JobRow.status.in_(UNENDED))
        .group_by(JobRow.queue)
        .order_by(JobRow.queue)
    )
