"""What a store of bytes is. Each real one lives in a file beside this."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol, Self

from stillhouse.contract.failures import UnavailableError

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
        """What was written, to read and to seek in. Nothing is written any more then."""

    def commit(self) -> None:
        """Make the bytes durable under their key. Raises StorageFullError."""


class BlobStore(Protocol):
    """Bytes by key. A key is written once.

    A store that is a service of its own raises UnavailableError wherever that is out of reach.
    """

    @property
    def name(self) -> str:
        """How rows call this store."""

    def writer(self, key: str) -> BlobWriter:
        """A place for new bytes. Raises StorageFullError."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB. Raises MissingBlobError."""

    def delete(self, key: str) -> None:
        """Forget the bytes, committed or not. No error when there are none."""

    def drop_unfinished(self, older_than_seconds: float) -> int:
        """Drop bytes that were never committed and whose writer was silent for so long; returns of how many keys."""

    def check(self) -> None:
        """Raises UnavailableError, StorageFullError or OSError where nothing can be stored now."""

    def close(self) -> None:
        """Let connections go."""


class RefusedError(UnavailableError):
    """The blob store refuses this service; whoever runs it finds the reason in its log."""


class MissingBlobError(Exception):
    """The store has no such bytes, or not all of them. A mistake of ours, or of whoever touched the store."""
