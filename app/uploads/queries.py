"""Statements about uploads. Whoever locks several rows does so in the order upload, parts, loose blobs."""

from sqlalchemy import ColumnElement, Delete, Insert, Select, and_, delete, func, insert, literal, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.artifacts.models import LooseBlobRow
from app.kit.clock import UtcDateTime, now
from app.uploads.models import UploadPartRow, UploadRow


def owned(owner: str, upload_id: str) -> Select[UploadRow]:
    """The upload, if it is the owner's and has not expired."""
    return select(UploadRow).where(
        UploadRow.id == upload_id, UploadRow.owner == owner, UploadRow.expires_at > now()
    )


def owned_for_change(owner: str, upload_id: str) -> Select[UploadRow]:
    """The upload, if it is the owner's, locked; expired or not."""
    return select(UploadRow).where(UploadRow.id == upload_id, UploadRow.owner == owner).with_for_update()


def take(owner: str, upload_id: str, *, received: int, holder: str, seconds: float) -> ReturningUpdate[UploadRow]:
    """Hold the upload for a request that goes on from this byte, where nobody else holds it."""
    return (
        update(UploadRow)
        .where(
            UploadRow.id == upload_id, UploadRow.owner == owner, UploadRow.received == received,
            UploadRow.expires_at > now(), _is_open(), ~_is_held(),
        )
        .values(holder=holder, held_until=now(seconds))
        .returning(UploadRow)
    )


def held(upload_id: str, holder: str) -> ColumnElement[bool]:
    """Whether this request still holds the upload: the fence."""
    return and_(UploadRow.id == upload_id, UploadRow.holder == holder, _is_open())


def num_parts(upload_id: str) -> Select[int]:
    """How many parts have come."""
    return select(func.count()).select_from(UploadPartRow).where(UploadPartRow.upload_id == upload_id)


def parts(upload_id: str) -> Select[UploadPartRow]:
    """The parts in their order."""
    return select(UploadPartRow).where(UploadPartRow.upload_id == upload_id).order_by(UploadPartRow.start)


def holding_part(blob_id: str) -> Select[str]:
    """The upload that has this blob as a part."""
    return select(UploadPartRow.upload_id).where(UploadPartRow.blob_id == blob_id)


def expired(limit: int) -> Select[str]:
    """Uploads whose time is over and that no request is adding to, locked."""
    return (
        select(UploadRow.id)
        .where(UploadRow.expires_at <= now(), ~_is_held())
        .order_by(UploadRow.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def loosen_parts(upload_id: str) -> Insert:
    """Doom the bytes of all parts."""
    gone = select(UploadPartRow.blob_id, UploadPartRow.store, literal(None, UtcDateTime())).where(
        UploadPartRow.upload_id == upload_id
    )
    return insert(LooseBlobRow).from_select(["id", "store", "kept_until"], gone)


def forget_parts(upload_id: str) -> Delete:
    """Drop the rows of all parts."""
    return delete(UploadPartRow).where(UploadPartRow.upload_id == upload_id)


def pending_bytes(owner: str) -> Select[int]:
    """What the owner's unfinished uploads come to when they are whole."""
    return select(func.coalesce(func.sum(UploadRow.length), 0)).where(
        UploadRow.owner == owner, UploadRow.expires_at > now(), _is_open()
    )


def _is_open() -> ColumnElement[bool]:
    return and_(UploadRow.artifact_id.is_(None), UploadRow.error.is_(None))


def _is_held() -> ColumnElement[bool]:
    return and_(UploadRow.holder.is_not(None), UploadRow.held_until > now())
