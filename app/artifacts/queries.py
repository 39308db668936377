"""Statements about artifacts and blobs."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, exists, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.jobs.models import JobCheckpointRow, JobFileRow, JobInputRow, JobRow
from app.kit.clock import now
from app.kit.paging import after_cursor
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.status import TERMINAL


def owned(owner: str, artifact_id: str) -> Select[ArtifactRow]:
    """The artifact, if it is the owner's."""
    return select(ArtifactRow).where(ArtifactRow.id == artifact_id, ArtifactRow.owner == owner)


def listed(owner: str, *, kind: str | None, size: int | None, cursor: str | None) -> Select[ArtifactRow]:
    """The owner's artifacts, newest first. Raises InvalidCursorError."""
    statement = select(ArtifactRow).where(ArtifactRow.owner == owner)
    if kind is not None:
        statement = statement.where(ArtifactRow.kind == kind)
    if size is not None:
        statement = statement.where(ArtifactRow.size == size)
    if cursor is not None:
        statement = statement.where(after_cursor(ArtifactRow.created_at, ArtifactRow.id, cursor))
    return statement.order_by(ArtifactRow.created_at.desc(), ArtifactRow.id.desc())


def same_bytes(owner: str, sha256: str, store: str) -> Select[BlobRow]:
    """The owner's blob of these bytes, locked against deletion."""
    return (
        select(BlobRow)
        .where(BlobRow.owner == owner, BlobRow.sha256 == sha256, BlobRow.store == store)
        .with_for_update(read=True, key_share=True)
    )


def twins(blob_id: str, *, kind: str, format: str | None) -> Select[ArtifactRow]:  # noqa: A002 - as the column
    """Artifacts of the blob, of this kind and format."""
    statement = select(ArtifactRow).where(ArtifactRow.blob_id == blob_id, ArtifactRow.kind == kind)
    return statement if format is None else statement.where(ArtifactRow.format == format)


def blobs_of(artifact_ids: Sequence[str]) -> Select[BlobRow]:
    """The blobs behind artifacts, locked, in an order that all keep to."""
    return (
        select(BlobRow)
        .where(BlobRow.id.in_(select(ArtifactRow.blob_id).where(ArtifactRow.id.in_(artifact_ids))))
        .order_by(BlobRow.id)
        .with_for_update()
    )


def unheld(blob_ids: Sequence[str]) -> Select[BlobRow]:
    """Those of the blobs that no artifact holds."""
    return select(BlobRow).where(BlobRow.id.in_(blob_ids), ~exists().where(ArtifactRow.blob_id == BlobRow.id))


def leftovers(job_id: str) -> Select[str]:
    """Artifacts that the job made on its way, and that are neither its results nor soft labels for others too."""
    is_result = exists().where(JobFileRow.artifact_id == ArtifactRow.id)
    is_shard = exists().where(SoftLabelsRow.artifact_id == ArtifactRow.id)
    return select(ArtifactRow.id).where(ArtifactRow.job_id == job_id, ~is_result, ~is_shard)


def unused(artifact_ids: Sequence[str]) -> Select[str]:
    """Those of the artifacts that are no job's result, no job's checkpoint and no shard of soft labels."""
    is_result = exists().where(JobFileRow.artifact_id == ArtifactRow.id)
    is_last = exists().where(JobRow.checkpoint_artifact_id == ArtifactRow.id)
    is_checkpoint = exists().where(JobCheckpointRow.artifact_id == ArtifactRow.id)
    is_shard = exists().where(SoftLabelsRow.artifact_id == ArtifactRow.id)
    return select(ArtifactRow.id).where(
        ArtifactRow.id.in_(artifact_ids), ~is_result, ~is_last, ~is_checkpoint, ~is_shard
    )


def older_checkpoints(job_id: str, *, num_kept: int) -> Select[str]:
    """The job's checkpoints but the newest ones."""
    newest = (
        select(JobCheckpointRow.artifact_id)
        .where(JobCheckpointRow.job_id == job_id)
        .order_by(JobCheckpointRow.seq.desc())
        .limit(num_kept)
    )
    return select(ArtifactRow.id).where(
        ArtifactRow.job_id == job_id, ArtifactRow.kind == "state", ArtifactRow.id.not_in(newest)
    )


def needing(artifact_id: str) -> Select[str]:
    """A job that has not ended and that reads this artifact or made it."""
    reads = exists().where(JobInputRow.job_id == JobRow.id, JobInputRow.artifact_id == artifact_id)
    made = exists().where(ArtifactRow.id == artifact_id, ArtifactRow.job_id == JobRow.id)
    return select(JobRow.id).where(JobRow.status.not_in(TERMINAL), or_(reads, made)).limit(1)


def give_up_overdue() -> ReturningUpdate[str]:
    """Doom the bytes whose writer has not finished in time."""
    return update(LooseBlobRow).where(LooseBlobRow.kept_until < now()).values(kept_until=None).returning(
        LooseBlobRow.id
    )


def doomed(limit: int) -> Select[LooseBlobRow]:
    """Bytes that are to be deleted."""
    return select(LooseBlobRow).where(LooseBlobRow.kept_until.is_(None)).limit(limit)


@cache
def headers() -> Select[str, str, str, dict[str, Any]]:
    """Id, kind, format and facts of those of the artifacts `ids` that are the `owner`'s.

    Built once, and of columns alone: it is asked with every submit.
    """
    owner = bindparam("owner", type_=ArtifactRow.owner.type)
    return select(ArtifactRow.id, ArtifactRow.kind, ArtifactRow.format, ArtifactRow.facts).where(
        ArtifactRow.owner == owner, ArtifactRow.id.in_(bindparam("ids", expanding=True))
    )
