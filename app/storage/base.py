"""What a store of bytes is. Each real one lives in a file beside this."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol, Self

BLOCK = 1024 * 1024


class BlobWriter(Protocol):
    """Bytes on their way into a store. Leaving the `with` block without a commit leaves nothing behind."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """Drop what was not committed."""

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError."""

    def reopen(self) -> BinaryIO:
        """What was written so far, to read and to seek in."""

    def commit(self) -> None:
        """Make the bytes durable under their key. Raises StorageFullError."""


class BlobStore(Protocol):
    """Bytes by key. A key is written once."""

    @property
    def name(self) -> str:
        """How rows call this store."""

    def writer(self, key: str) -> BlobWriter:
        """A place for new bytes. Raises StorageFullError."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB. Raises MissingBlobError."""

    def delete(self, key: str) -> None:
        """Forget the bytes, committed or not. No error when there are none."""


class MissingBlobError(Exception):
    """The store has no such bytes, or not all of them. A mistake of ours, or of whoever touched the store."""
