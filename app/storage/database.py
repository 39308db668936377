"""Blobs as chunk rows of the database."""

import io
from collections.abc import Iterator
from typing import BinaryIO, Self

from sqlalchemy import delete, func, insert, select

from app.kit.database import Database
from app.storage.base import BLOCK, MissingBlobError
from app.storage.models import BlobChunkRow

_CHUNKS_PER_DELETE = 16


class DatabaseStore:
    """Chunks of 1 MiB, each in a transaction of its own: one big transaction would hold up every heartbeat."""

    name = "database"

    def __init__(self, db: Database) -> None:
        self._db = db

    def writer(self, key: str) -> "ChunkWriter":
        """Rows that nobody knows of until the commit."""
        return ChunkWriter(self, key)

    def put(self, key: str, number: int, content: bytes) -> None:
        """Write one chunk. Raises StorageFullError."""
        with self._db.writing() as session:
            session.execute(insert(BlobChunkRow).values(blob_id=key, number=number, content=content))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB. Raises MissingBlobError."""
        stop = self._size(key) if end is None else end
        position = start
        while position < stop:
            number, offset = divmod(position, BLOCK)
            block = self._chunk(key, number)[offset:offset + stop - position]
            if not block:
                raise MissingBlobError(key)
            position += len(block)
            yield block

    def delete(self, key: str) -> None:
        """Remove the chunks, a few at a time."""
        while self._delete_some(key):
            pass

    def drop_unfinished(self, older_than_seconds: float) -> int:  # noqa: ARG002 - of this store rows know all
        """Nothing: rows of loose_blobs lead to every chunk."""
        return 0

    def check(self) -> None:
        """Raises what the database raises."""
        with self._db.reading() as session:
            session.execute(select(BlobChunkRow.number).limit(1))

    def close(self) -> None:
        """Nothing is held: the connections are the database's."""

    def _size(self, key: str) -> int:
        last = select(BlobChunkRow.number, func.length(BlobChunkRow.content)).where(
            BlobChunkRow.blob_id == key
        ).order_by(BlobChunkRow.number.desc()).limit(1)
        with self._db.reading() as session:
            found = session.execute(last).one_or_none()
        if found is None:
            raise MissingBlobError(key)
        number, length = found
        return int(number * BLOCK + length)

    def _chunk(self, key: str, number: int) -> bytes:
        chunk = select(BlobChunkRow.content).where(BlobChunkRow.blob_id == key, BlobChunkRow.number == number)
        with self._db.reading() as session:
            return session.scalars(chunk).one_or_none() or b""

    def _delete_some(self, key: str) -> bool:
        first = select(BlobChunkRow.number).where(BlobChunkRow.blob_id == key).limit(_CHUNKS_PER_DELETE)
        with self._db.writing() as session:
            numbers = session.scalars(
                delete(BlobChunkRow)
                .where(BlobChunkRow.blob_id == key, BlobChunkRow.number.in_(first.scalar_subquery()))
                .returning(BlobChunkRow.number)
            ).all()
        return len(numbers) == _CHUNKS_PER_DELETE


class ChunkWriter:
    """Gathers chunks and writes each when it is full."""

    def __init__(self, store: DatabaseStore, key: str) -> None:
        self._store = store
        self._key = key
        self._pending = bytearray()
        self._num_chunks = 0
        self._is_committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_committed:
            self._store.delete(self._key)

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError."""
        self._pending += content
        while len(self._pending) >= BLOCK:
            self._put(BLOCK)

    def reopen(self) -> BinaryIO:
        """What was written so far, to read and to seek in. Held in memory: small files are kept here."""
        written = [self._store.read(self._key, 0, self._num_chunks * BLOCK), [bytes(self._pending)]]
        return io.BytesIO(b"".join(block for blocks in written for block in blocks))

    def commit(self) -> None:
        """Write the last chunk. Raises StorageFullError."""
        if self._pending or not self._num_chunks:
            self._put(len(self._pending))
        self._is_committed = True

    def _put(self, size: int) -> None:
        self._store.put(self._key, self._num_chunks, bytes(self._pending[:size]))
        del self._pending[:size]
        self._num_chunks += 1
