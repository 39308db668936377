"""The bytes of one request, on their way into parts of an upload."""

import hashlib
import secrets
from contextlib import ExitStack
from dataclasses import dataclass

from app.artifacts.service import announce, drop_loose
from app.kit.database import Database
from app.kit.ids import new_id
from app.storage.base import BlobStore
from app.uploads import queries, service
from app.uploads.service import Hold, Part
from stillhouse.contract.failures import ChecksumMismatchError

# What a cut connection may cost where the process dies with it; also the largest object that stores are given here.
PART_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one request must come to."""

    algorithm: str
    digest: bytes


class Receiving:
    """Takes the bytes of one request, and counts them part by part, or all at once where a checksum is to be met.

    `close` must be called at the end, whatever happened.
    """

    def __init__(self, db: Database, store: BlobStore, hold: Hold, checksum: Checksum | None = None) -> None:
        self.hold = hold
        self._db = db
        self._store = store
        self._checksum = checksum
        self._digest: hashlib._Hash | None = hashlib.new(checksum.algorithm) if checksum else None
        self._open: _OpenPart | None = None
        self._waiting: list[Part] = []
        self._end = hold.received

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError, UploadLockedError when the hold was lost."""
        if self._digest is not None:
            self._digest.update(content)
        rest = memoryview(content)
        while rest:
            if self._open is None:
                self._open = _OpenPart(self._db, self._store, self._end)
            taken = rest[:PART_BYTES - self._open.size]
            self._open.write(bytes(taken))
            rest = rest[len(taken):]
            if self._open.size == PART_BYTES:
                self._close_part()

    def close(self, *, is_whole: bool) -> None:
        """Count what has come, unless a checksum says otherwise; `is_whole` when the request came to its end.

        Raises ChecksumMismatchError, StorageFullError, UploadLockedError.
        """
        try:
            if self._checksum is not None and not self._is_right(is_whole=is_whole):
                raise ChecksumMismatchError
            self._close_part()
            self._count()
        finally:
            self._drop()

    def _is_right(self, *, is_whole: bool) -> bool:
        assert self._checksum is not None and self._digest is not None  # noqa: S101, PT018 - asked only with one
        return is_whole and secrets.compare_digest(self._digest.digest(), self._checksum.digest)

    def _close_part(self) -> None:
        if self._open is None:
            return
        part = self._open.commit()
        self._end += part.size
        self._waiting.append(part)
        self._open = None
        if self._checksum is None:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            self.hold = service.add_parts(self._db, self.hold, self._waiting)
            self._waiting = []

    def _drop(self) -> None:
        """Leave nothing behind of what does not count."""
        if self._open is not None:
            self._open.abandon()
            self._open = None
        for part in self._waiting:
            drop_loose(self._db, self._store, part.blob_id, holder=queries.holding_part(part.blob_id))
        self._waiting = []


class _OpenPart:
    """A part that is being written."""

    def __init__(self, db: Database, store: BlobStore, start: int) -> None:
        self.size = 0
        self._db = db
        self._store = store
        self._start = start
        self._id = new_id("blob")
        self._writing = ExitStack()
        announce(db, self._id, store.name)
        try:
            self._writer = self._writing.enter_context(store.writer(self._id))
        except BaseException:
            self.abandon()
            raise

    def write(self, content: bytes) -> None:
        self._writer.write(content)
        self.size += len(content)

    def commit(self) -> Part:
        """The part, safe in the store, still announced."""
        self._writer.commit()
        self._writing.close()
        return Part(self._start, self.size, self._id, self._store.name)

    def abandon(self) -> None:
        """Leave nothing behind."""
        try:
            self._writing.close()
        finally:
            drop_loose(self._db, self._store, self._id, holder=queries.holding_part(self._id))
