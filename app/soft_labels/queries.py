"""Statements about shards of soft labels.

Whoever locks several rows does so in the order job, artifacts, shards, and shards by key; what another has locked for
eviction or for taking it on is passed over. So nobody waits in a circle.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import aliased

from app.artifacts.models import ArtifactRow
from app.jobs.models import JobInputRow, JobRow
from app.kit.clock import now
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.status import LEASED, TERMINAL


def ready(owner: str, keys: Sequence[str]) -> Select[str, ArtifactRow]:
    """Keys and artifacts of the shards that are there; the artifacts are locked against deletion."""
    return (
        select(SoftLabelsRow.key, ArtifactRow)
        .join(ArtifactRow, ArtifactRow.id == SoftLabelsRow.artifact_id)
        .where(SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys), ArtifactRow.owner == owner)
        .order_by(SoftLabelsRow.key)
        .with_for_update(of=ArtifactRow, read=True, key_share=True)
    )


def several(owner: str, keys: Sequence[str]) -> Select[SoftLabelsRow]:
    """These shards, made or taken on."""
    return (
        select(SoftLabelsRow)
        .where(SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys))
        .order_by(SoftLabelsRow.key)
    )


def several_for_change(owner: str, keys: Sequence[str]) -> Select[SoftLabelsRow]:
    """These shards, locked."""
    return several(owner, keys).with_for_update(key_share=True)


def taken_on(owner: str, keys: Sequence[str], *, job_id: str, attempt: int) -> Select[str]:
    """Keys of the shards that this attempt has taken on and not made yet."""
    return select(SoftLabelsRow.key).where(
        SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys), SoftLabelsRow.artifact_id.is_(None),
        SoftLabelsRow.maker_job_id == job_id, SoftLabelsRow.maker_attempt == attempt,
    )


def abandoned(owner: str, keys: Sequence[str], limit: int) -> Select[SoftLabelsRow]:
    """Shards that somebody took on who has died or let go since, locked."""
    return (
        select(SoftLabelsRow)
        .where(
            SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys), SoftLabelsRow.artifact_id.is_(None),
            ~_maker_lives(),
        )
        .order_by(SoftLabelsRow.key)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )


def makers(owner: str, keys: Sequence[str], *, but: str) -> Select[str]:
    """Ids of the other jobs that make some of these shards."""
    return (
        select(SoftLabelsRow.maker_job_id)
        .where(
            SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys), SoftLabelsRow.artifact_id.is_(None),
            SoftLabelsRow.maker_job_id != but,
        )
        .distinct()
        .order_by(SoftLabelsRow.maker_job_id)
    )


def _maker_lives() -> ColumnElement[bool]:
    return exists().where(
        JobRow.id == SoftLabelsRow.maker_job_id, JobRow.attempt == SoftLabelsRow.maker_attempt,
        JobRow.status.in_(LEASED), JobRow.lease_until >= now(),
    )


def never_made(limit: int) -> Select[SoftLabelsRow]:
    """What was taken on by jobs that have ended since, locked."""
    has_ended = exists().where(JobRow.id == SoftLabelsRow.maker_job_id, JobRow.status.in_(TERMINAL))
    return (
        select(SoftLabelsRow)
        .where(SoftLabelsRow.artifact_id.is_(None), has_ended)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def unused_since(seconds: float, limit: int) -> Select[str]:
    """Artifacts of shards that no job has used for so long, and none uses; locked."""
    return (
        select(ArtifactRow.id)
        .join(SoftLabelsRow, SoftLabelsRow.artifact_id == ArtifactRow.id)
        .where(SoftLabelsRow.last_used_at < now(-seconds), ~is_in_use())
        .order_by(SoftLabelsRow.last_used_at)
        .limit(limit)
        .with_for_update(of=ArtifactRow, skip_locked=True)
    )


def sizes_above(max_bytes: int) -> Select[str, int]:
    """Owners whose shards take more room than that, and how much."""
    size = func.sum(ArtifactRow.size)
    return (
        select(SoftLabelsRow.owner, size)
        .join(ArtifactRow, ArtifactRow.id == SoftLabelsRow.artifact_id)
        .group_by(SoftLabelsRow.owner)
        .having(size > max_bytes)
    )


def least_recently_used(owner: str, limit: int) -> Select[str, int]:
    """Artifacts of the owner's shards that no job uses, with their sizes, the longest unused first; locked."""
    return (
        select(ArtifactRow.id, ArtifactRow.size)
        .join(SoftLabelsRow, SoftLabelsRow.artifact_id == ArtifactRow.id)
        .where(SoftLabelsRow.owner == owner, ~is_in_use())
        .order_by(SoftLabelsRow.last_used_at, SoftLabelsRow.key)
        .limit(limit)
        .with_for_update(of=ArtifactRow, skip_locked=True)
    )


def idle(artifact_ids: Sequence[str]) -> Select[str]:
    """Those of the artifacts that no job uses."""
    return select(ArtifactRow.id).where(ArtifactRow.id.in_(artifact_ids), ~is_in_use())


def is_in_use() -> ColumnElement[bool]:
    """Whether a job that has not ended was lent the artifact, or made it."""
    borrower, maker = aliased(JobRow), aliased(JobRow)
    return or_(
        exists().where(
            JobInputRow.artifact_id == ArtifactRow.id, JobInputRow.job_id == borrower.id,
            borrower.status.not_in(TERMINAL),
        ),
        exists().where(maker.id == ArtifactRow.job_id, maker.status.not_in(TERMINAL)),
    )


def holding(owner: str, keys: Sequence[str]) -> Select[str]:
    """Artifacts that hold these shards, locked."""
    return (
        select(ArtifactRow.id)
        .join(SoftLabelsRow, SoftLabelsRow.artifact_id == ArtifactRow.id)
        .where(SoftLabelsRow.owner == owner, SoftLabelsRow.key.in_(keys))
        .order_by(ArtifactRow.id)
        .with_for_update(of=ArtifactRow)
    )


def of_artifacts(artifact_ids: Sequence[str]) -> Select[SoftLabelsRow]:
    """The shards that these artifacts hold."""
    return select(SoftLabelsRow).where(SoftLabelsRow.artifact_id.in_(artifact_ids))
