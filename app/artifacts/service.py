"""Artifacts come in, are read, and go; their bytes are stored once per owner and leave with the last artifact.

No bytes are ever without a row: whoever writes them announces them as loose first, and whoever drops the last
artifact makes them loose again. `sweep` deletes what is loose for good, also after a crash in between.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from sqlalchemy import Select, insert, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from app.artifacts import queries
from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.kit.clock import now
from app.kit.database import Database, insert_into
from app.kit.ids import new_id
from app.kit.paging import Slice, cut
from app.quotas import service as quotas
from app.storage.base import BLOCK, BlobStore
from app.storage.stores import Stores
from stillhouse.contract.failures import (
    ArtifactInUseError,
    DigestMismatchError,
    EmptyUploadError,
    NotFoundError,
    UnavailableError,
    UnknownContentError,
    UploadIncompleteError,
)
from stillhouse.contract.resources import ArtifactKind

WRITING_SECONDS = 7 * 24 * 3600
_SWEEP_LIMIT = 100
StoreName = Literal["files", "database"]

log = logging.getLogger(__name__)


class Intake:
    """A file on its way in. Use as a context manager: what is not finished at its end leaves nothing behind."""

    def __init__(self, db: Database, store: BlobStore, *, owner: str, max_stored: int | None = None) -> None:
        self.size = 0
        self._max_stored = max_stored
        self._db = db
        self._store = store
        self._owner = owner
        self._id = new_id("blob")
        self._digest = hashlib.sha256()
        self._is_kept = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            announce(self._db, self._id, self._store.name)
            stack.callback(self._drop_unless_kept)
            self._writer = stack.enter_context(self._store.writer(self._id))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    @property
    def sha256(self) -> str:
        """Digest of what was written so far, as hex."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError."""
        self._writer.write(content)
        self._digest.update(content)
        self.size += len(content)

    def reopen(self) -> BinaryIO:
        """What was written so far, to read and to seek in: headers are inspected before anything is kept."""
        return self._writer.reopen()

    def finish(
        self, *, kind: ArtifactKind, name: str, format: str,  # noqa: A002 - as the column
        facts: Mapping[str, Any] | None = None, job_id: str | None = None, sha256: str | None = None,
        also: Callable[[Session, ArtifactRow], None] | None = None,
    ) -> ArtifactRow:
        """Keep the file as an artifact; the bytes are kept once if the owner has them already.

        `also` works in the same transaction. Raises EmptyUploadError, DigestMismatchError when `sha256` is not what
        arrived, StorageFullError, StorageQuotaExceededError when the owner then has more bytes than `max_stored`, and
        what `also` raises.
        """
        if not self.size:
            raise EmptyUploadError
        if sha256 is not None and sha256.lower() != self.sha256:
            raise DigestMismatchError
        self._writer.commit()
        with self._db.writing() as session:
            if self._max_stored is not None:
                quotas.hold_room(session, self._owner)
            blob = self._shared_blob(session)
            artifact = ArtifactRow(
                id=new_id("art"), owner=self._owner, kind=kind, name=name, format=format, size=self.size, blob=blob,
                facts=dict(facts or {}), job_id=job_id,
            )
            session.add(artifact)
            if also is not None:
                session.flush()
                also(session, artifact)
        self._is_kept = blob.id == self._id
        return artifact

    def _shared_blob(self, session: Session) -> BlobRow:
        """The owner's blob of these bytes, locked: the one that is there, else this one."""
        while True:
            there = session.scalars(queries.same_bytes(self._owner, self.sha256, self._store.name)).one_or_none()
            if there is not None:
                return there
            quotas.check_room(session, self._owner, self._max_stored, adding=self.size)
            made = session.scalars(insert_into(session, BlobRow).values(
                id=self._id, owner=self._owner, sha256=self.sha256, size=self.size, store=self._store.name,
            ).on_conflict_do_nothing(
                index_elements=[BlobRow.owner, BlobRow.sha256, BlobRow.store]
            ).returning(BlobRow)).one_or_none()
            if made is not None:
                settle(session, made.id)
                return made

    def _drop_unless_kept(self) -> None:
        if not self._is_kept:
            drop_loose(self._db, self._store, self._id, holder=select(BlobRow.id).where(BlobRow.id == self._id))


def store_file(
    db: Database, stores: Stores, source: Path | BinaryIO, *, owner: str, kind: ArtifactKind, name: str,
    format: str, job_id: str | None, into: StoreName, facts: Mapping[str, Any] | None = None,  # noqa: A002 - as the column
) -> ArtifactRow:
    """Keep a local file as an artifact. Raises EmptyUploadError, StorageFullError."""
    with Intake(db, stores.named(into), owner=owner) as intake:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            while block := file.read(BLOCK):
                intake.write(block)
        return intake.finish(kind=kind, name=name, format=format, facts=facts, job_id=job_id)


def store_again(
    db: Database, stores: Stores, *, owner: str, sha256: str, kind: ArtifactKind, name: str,
    format: str | None,  # noqa: A002 - as the column
) -> ArtifactRow:
    """A new artifact of bytes that the owner has stored as this kind and format. Raises UnknownContentError."""
    with db.writing() as session:
        blob = session.scalars(queries.same_bytes(owner, sha256.lower(), stores.files.name)).one_or_none()
        twin = session.scalars(queries.twins(blob.id, kind=kind, format=format).limit(1)).first() if blob else None
        if blob is None or twin is None:
            raise UnknownContentError(param="sha256")
        artifact = ArtifactRow(
            id=new_id("art"), owner=owner, kind=kind, name=name, format=twin.format, size=twin.size, blob=blob,
            facts=twin.facts, job_id=None,
        )
        session.add(artifact)
    return artifact


def find(session: Session, owner: str, artifact_id: str) -> ArtifactRow:
    """The owner's artifact. Raises NotFoundError."""
    row = session.scalars(queries.owned(owner, artifact_id)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def page(
    session: Session, owner: str, *, kind: str | None = None, size: int | None = None, cursor: str | None = None,
    limit: int = 50,
) -> Slice[ArtifactRow]:
    """A page of the owner's artifacts, newest first. Raises InvalidCursorError."""
    statement = queries.listed(owner, kind=kind, size=size, cursor=cursor)
    return cut(session.scalars(statement.limit(limit + 1)).all(), limit)


def content(stores: Stores, artifact: ArtifactRow, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The file's bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB."""
    stop = artifact.size if end is None else min(end, artifact.size)
    return stores.named(artifact.blob.store).read(artifact.blob_id, start, stop)


def note_use(db: Database, artifact: ArtifactRow) -> None:
    """Remember that the artifact was downloaded; written at most once an hour."""
    if artifact.last_used_at is not None and datetime.now(UTC) - artifact.last_used_at < timedelta(hours=1):
        return
    with db.writing() as session:
        session.execute(update(ArtifactRow).where(ArtifactRow.id == artifact.id).values(last_used_at=now()))


def delete(db: Database, stores: Stores, *, owner: str, artifact_id: str) -> None:
    """Delete the artifact, and its bytes when no other artifact holds them.

    Raises NotFoundError, or ArtifactInUseError while a job that has not ended reads it or made it.
    """
    with db.writing() as session:
        # Locked before the question: a job that is being submitted holds the row, or finds it gone.
        if session.scalars(queries.owned(owner, artifact_id).with_for_update(of=ArtifactRow)).one_or_none() is None:
            raise NotFoundError
        job_id = session.scalars(queries.needing(artifact_id)).one_or_none()
        if job_id is not None:
            raise ArtifactInUseError(f"{job_id} needs this artifact and has not ended; cancel it first.")
        discard(session, [artifact_id])
    sweep(db, stores)


def discard(session: Session, artifact_ids: Sequence[str]) -> None:
    """Drop artifacts; bytes that no artifact holds any longer become loose, for `sweep` to delete."""
    blob_ids = [blob.id for blob in session.scalars(queries.blobs_of(artifact_ids))]
    session.execute(delete_rows(ArtifactRow).where(ArtifactRow.id.in_(artifact_ids)))
    for blob in session.scalars(queries.unheld(blob_ids)).all():
        session.execute(insert(LooseBlobRow).values(id=blob.id, store=blob.store, kept_until=None))
        session.execute(delete_rows(BlobRow).where(BlobRow.id == blob.id))


def discard_unused(session: Session, artifact_ids: Sequence[str]) -> None:
    """Drop those of the artifacts that no job came to hold."""
    discard(session, session.scalars(queries.unused(artifact_ids)).all())


def discard_leftovers(session: Session, job_id: str) -> None:
    """Drop what an ended job made on its way: its checkpoints, and files that never became results."""
    discard(session, session.scalars(queries.leftovers(job_id)).all())


def discard_checkpoints(session: Session, job_id: str, *, num_kept: int) -> None:
    """Drop all checkpoints of the job but the newest ones."""
    discard(session, session.scalars(queries.older_checkpoints(job_id, num_kept=num_kept)).all())


def sweep(db: Database, stores: Stores) -> int:
    """Delete loose bytes for good; returns of how many blobs. Any process may do this at any time."""
    with db.writing() as session:
        session.execute(queries.give_up_overdue())
        found = {row.id: row.store for row in session.scalars(queries.doomed(_SWEEP_LIMIT))}
    gone: list[str] = []
    try:
        for blob_id, store in found.items():
            stores.named(store).delete(blob_id)
            gone.append(blob_id)
    except UnavailableError as error:
        log.warning("%d blobs are left for the next sweep: %s", len(found) - len(gone), error)
    _forget(db, gone)
    return len(gone)


def announce(db: Database, blob_id: str, store: str) -> None:
    """Say that bytes are about to be written under this key."""
    with db.writing() as session:
        session.execute(
            insert(LooseBlobRow).values(id=blob_id, store=store, kept_until=now(WRITING_SECONDS))
        )


def settle(session: Session, blob_id: str) -> None:
    """The bytes are held by a row from now on. Raises UploadIncompleteError when they were given up meanwhile."""
    settled = session.scalars(
        delete_rows(LooseBlobRow)
        .where(LooseBlobRow.id == blob_id, LooseBlobRow.kept_until.is_not(None))
        .returning(LooseBlobRow.id)
    ).one_or_none()
    if settled is None:
        raise UploadIncompleteError("The upload took too long and was given up; send it again.")


def drop_loose(db: Database, store: BlobStore, blob_id: str, *, holder: Select[str]) -> None:
    """Delete announced bytes, unless a row has come to hold them: a commit may have worked whose answer was lost."""
    with db.writing() as session:
        is_doomed = session.scalars(
            update(LooseBlobRow).where(LooseBlobRow.id == blob_id).values(kept_until=None).returning(LooseBlobRow.id)
        ).one_or_none()
        if is_doomed is None and session.scalars(holder).first() is not None:
            return
    try:
        store.delete(blob_id)
    except UnavailableError:
        log.warning("%s is left for the next sweep: its store is out of reach", blob_id)
        return
    _forget(db, [blob_id])


def _forget(db: Database, blob_ids: Sequence[str]) -> None:
    if not blob_ids:
        return
    with db.writing() as session:
        session.execute(delete_rows(LooseBlobRow).where(LooseBlobRow.id.in_(blob_ids)))
