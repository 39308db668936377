"""Uploads begin, are held by one request at a time, and become artifacts.

Bytes come as parts, each a blob of its own (stores cannot append), announced as loose before they are written and held
by a row of `upload_parts` once they count. When all are there, they stream through an ordinary `Intake`: the digest of
a whole cannot be had from digests of parts that several processes took, and what comes out is an artifact like any
other, at the price of one copy.

Who adds bytes holds the upload by a token with a short lease. The token fences: what a request writes that lost its
hold meanwhile counts for nothing.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import monotonic

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from app.artifacts.keeping import Wanted, check_format, keep
from app.artifacts.models import ArtifactRow
from app.artifacts.service import Intake, settle
from app.kit.clock import now
from app.kit.database import Database
from app.kit.ids import new_id
from app.quotas import service as quotas
from app.storage.base import MissingBlobError
from app.storage.stores import Stores
from app.uploads import queries
from app.uploads.models import UploadPartRow, UploadRow
from stillhouse.contract.failures import (
    Blame,
    EmptyUploadError,
    Failure,
    NotFoundError,
    StillhouseError,
    TooManyPartsError,
    UploadGoneError,
    UploadLockedError,
    UploadOffsetError,
    UploadTooLargeError,
)

# A request from which nothing came for so long may be replaced by another; it goes on if none came.
RECEIVING_SECONDS = 10.0
# Bringing a whole file to the disk is one call that may be silent for long.
FINISHING_SECONDS = 120.0
MAX_PARTS = 10_000


@dataclass(frozen=True)
class Hold:
    """The right of one request to add bytes to an upload, from byte `received` on."""

    upload_id: str
    owner: str
    token: str
    received: int
    length: int
    wanted: Wanted
    # How long the upload is kept after its last byte.
    hours: float

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there."""
        return self.received == self.length


@dataclass(frozen=True)
class Part:
    """Bytes that lie in the store and are announced, but count for nothing yet."""

    start: int
    size: int
    blob_id: str
    store: str


def begin(
    db: Database, *, owner: str, wanted: Wanted, length: int, metadata_header: str, max_bytes: int,
    hours: float, max_stored: int | None = None,
) -> UploadRow:
    """A new upload without any bytes. The one place where the size of an upload is judged.

    Raises EmptyUploadError, UploadTooLargeError, InvalidRequestError, StorageQuotaExceededError.
    """
    check_format(wanted)
    if not length:
        raise EmptyUploadError
    if length > max_bytes:
        raise UploadTooLargeError(f"The upload is larger than the {max_bytes} bytes that this service accepts.")
    with db.writing() as session:
        if max_stored is not None:
            quotas.hold_room(session, owner)
            quotas.check_room(session, owner, max_stored, adding=length)
        return session.scalars(
            insert(UploadRow)
            .values(
                id=new_id("upl"), owner=owner, kind=wanted.kind, name=wanted.name, format=wanted.format,
                sha256=wanted.sha256, metadata_header=metadata_header, length=length, received=0,
                expires_at=now(3600 * hours),
            )
            .returning(UploadRow)
        ).one()


def find(session: Session, owner: str, upload_id: str) -> UploadRow:
    """The owner's upload. Raises NotFoundError, also when it has expired."""
    row = session.scalars(queries.owned(owner, upload_id)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def hold(db: Database, *, owner: str, upload_id: str, received: int, hours: float) -> Hold:
    """Hold the upload to add bytes from this one on.

    Raises NotFoundError, UploadGoneError, UploadOffsetError, UploadLockedError, TooManyPartsError.
    """
    token = secrets.token_hex(8)
    with db.writing() as session:
        row = session.scalars(queries.take(
            owner, upload_id, received=received, holder=token, seconds=RECEIVING_SECONDS
        )).one_or_none()
        if row is None:
            raise _why_not(find(session, owner, upload_id), received)
        if row.received < row.length and session.scalars(queries.num_parts(upload_id)).one() >= MAX_PARTS:
            raise TooManyPartsError
    return Hold(upload_id, owner, token, row.received, row.length, wanted_of(row), hours)


def add_parts(db: Database, hold: Hold, parts: list[Part]) -> Hold:
    """Count these parts as received, all or none of them. Raises UploadLockedError when the hold was lost."""
    received = hold.received + sum(part.size for part in parts)
    with db.writing() as session:
        _change(session, hold, received=received, held_until=now(RECEIVING_SECONDS), expires_at=now(3600 * hold.hours))
        for part in parts:
            settle(session, part.blob_id)
        session.execute(insert(UploadPartRow), [
            {
                "upload_id": hold.upload_id, "start": part.start, "size": part.size, "blob_id": part.blob_id,
                "store": part.store,
            }
            for part in parts
        ])
    return replace(hold, received=received)


def release(db: Database, hold: Hold) -> None:
    """Let another request go on. Does nothing when the hold was lost."""
    with db.writing() as session:
        session.execute(
            update(UploadRow).where(queries.held(hold.upload_id, hold.token)).values(holder=None, held_until=None)
        )


def finish(db: Database, stores: Stores, hold: Hold) -> ArtifactRow:
    """Make the artifact of an upload whose bytes are all there, just as `POST /artifacts` does.

    What is wrong with the bytes is the end of the upload; after any other failure it can be tried again. Raises what
    `keep` raises, UploadLockedError when the hold was lost.
    """
    try:
        with Intake(db, stores.files, owner=hold.owner) as intake:
            for block in _content(db, stores, hold):
                intake.write(block)
            return keep(intake, hold.wanted, also=lambda session, artifact: _succeed(session, hold, artifact))
    except StillhouseError as error:
        if error.blame is Blame.USER and not isinstance(error, UploadLockedError):
            _fail(db, hold, error.as_failure())
        raise
    finally:
        release(db, hold)


def finish_if_whole(db: Database, stores: Stores, row: UploadRow, hours: float) -> None:
    """Finish what came whole but whose process died before it was an artifact; nothing where somebody is at it.

    Raises what `finish` raises.
    """
    if row.received < row.length or row.artifact_id is not None or row.error is not None:
        return
    try:
        held = hold(db, owner=row.owner, upload_id=row.id, received=row.length, hours=hours)
    except (UploadLockedError, UploadGoneError):
        return
    finish(db, stores, held)


def terminate(db: Database, *, owner: str, upload_id: str) -> None:
    """Drop the upload and its bytes, also under a request that adds to it. Raises NotFoundError."""
    with db.writing() as session:
        if session.scalars(queries.owned_for_change(owner, upload_id)).one_or_none() is None:
            raise NotFoundError
        _drop(session, upload_id)


def expire(db: Database, limit: int = 20) -> int:
    """Drop uploads whose time is over; returns how many. Any process may do this at any time."""
    with db.writing() as session:
        found = session.scalars(queries.expired(limit)).all()
        for upload_id in found:
            _drop(session, upload_id)
    return len(found)


def wanted_of(row: UploadRow) -> Wanted:
    """What the upload is to become."""
    return Wanted(row.kind, row.name, row.format, row.sha256)  # type: ignore[arg-type]  # checked when it began


def _why_not(row: UploadRow, received: int) -> StillhouseError:
    if row.error is not None:
        return UploadGoneError(f"The upload was refused: {row.error['message']} Begin a new one.")
    if row.artifact_id is not None:
        return UploadGoneError(f"The upload is whole, and is {row.artifact_id} now.")
    if row.received != received:
        return UploadOffsetError(f"The next byte is number {row.received}, not {received}.")
    return UploadLockedError()


def _change(session: Session, hold: Hold, **columns: object) -> None:
    changed = session.scalars(
        update(UploadRow).where(queries.held(hold.upload_id, hold.token)).values(columns).returning(UploadRow.id)
    ).one_or_none()
    if changed is None:
        raise UploadLockedError("Another request has taken this upload over, or ended it.")


def _content(db: Database, stores: Stores, hold: Hold) -> Iterator[bytes]:
    """All bytes in their order, while the hold is kept. Raises UploadLockedError."""
    with db.reading() as session:
        parts = session.scalars(queries.parts(hold.upload_id)).all()
    renewed_at = -FINISHING_SECONDS
    for part in parts:
        try:
            for block in stores.named(part.store).read(part.blob_id, 0, part.size):
                if monotonic() - renewed_at > FINISHING_SECONDS / 3:
                    _renew(db, hold)
                    renewed_at = monotonic()
                yield block
        except MissingBlobError:
            _renew(db, hold)  # ended meanwhile, or the store has lost bytes
            raise
    _renew(db, hold)


def _renew(db: Database, hold: Hold) -> None:
    with db.writing() as session:
        _change(session, hold, held_until=now(FINISHING_SECONDS))


def _succeed(session: Session, hold: Hold, artifact: ArtifactRow) -> None:
    _change(session, hold, artifact_id=artifact.id, expires_at=now(3600 * hold.hours))
    _loosen(session, hold.upload_id)


def _fail(db: Database, hold: Hold, failure: Failure) -> None:
    with db.writing() as session:
        _change(session, hold, error=failure.model_dump(mode="json"), expires_at=now(3600 * hold.hours))
        _loosen(session, hold.upload_id)


def _loosen(session: Session, upload_id: str) -> None:
    session.execute(queries.loosen_parts(upload_id))
    session.execute(queries.forget_parts(upload_id))


def _drop(session: Session, upload_id: str) -> None:
    _loosen(session, upload_id)
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))
