"""Statements about what an owner uses."""

from typing import Literal

from sqlalchemy import ColumnElement, Select, func, select

from app.artifacts.models import BlobRow
from app.jobs.models import JobRow
from stillhouse.contract.status import LEASED, Kind, Status

Counted = Literal["stored", "queued", "running"]


def turn(counted: Counted, owner: str) -> Select[None]:
    """Waits on PostgreSQL until nobody else counts the same, up to the end of the transaction."""
    lock: ColumnElement[None] = func.pg_advisory_xact_lock(func.hashtextextended(f"{counted} {owner}", 0))
    return select(lock)


def stored_bytes(owner: str) -> Select[int]:
    """Bytes that the owner has stored, equal ones once."""
    return select(func.coalesce(func.sum(BlobRow.size), 0)).where(BlobRow.owner == owner)


def num_queued(owner: str, kind: Kind) -> Select[int]:
    """Jobs (or plans) of the owner that wait for a worker."""
    return select(func.count()).where(JobRow.owner == owner, JobRow.kind == kind, JobRow.status == Status.QUEUED)


def num_running(owner: str) -> Select[int]:
    """Jobs of the owner that a worker has."""
    return select(func.count()).where(JobRow.owner == owner, JobRow.kind == "job", JobRow.status.in_(LEASED))
