"""Counts what stores do, and what it takes, whichever store it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal, Self, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.storage.base import BlobStore, BlobWriter, MissingBlobError
from app.storage.stores import Stores
from stillhouse.contract.failures import StorageFullError, UnavailableError

Operation = Literal["write", "read", "delete"]
_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0)
# Why it failed: a closed set.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (StorageFullError, "full"), (MissingBlobError, "missing"), (UnavailableError, "unavailable"),
)


class StoreNumbers:
    """Operations of the stores of one process, for Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "stillhouse_store_seconds", "Time that a store took for one blob, without waiting for who sends or reads.",
            ["store", "operation"], buckets=_SECONDS, registry=registry,
        )
        self._errors = Counter(
            "stillhouse_store_errors_total", "Operations that a store failed.", ["store", "operation", "reason"],
            registry=registry,
        )

    def expect(self, store: str) -> None:
        """Have the failures of a store be there before the first: the increase of a new series is nothing."""
        for operation in get_args(Operation):
            for reason in (*(reason for _, reason in _REASONS), "error"):
                self._errors.labels(store, operation, reason)

    def done(self, store: str, operation: Operation, seconds: float) -> None:
        """Count an operation, failed or not."""
        self._seconds.labels(store, operation).observe(seconds)

    def failed(self, store: str, operation: Operation, error: Exception) -> None:
        """Count a failure."""
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "error")
        self._errors.labels(store, operation, reason).inc()


def watched(stores: Stores, numbers: StoreNumbers) -> Stores:
    """The same stores, counted."""
    return Stores(files=WatchedStore(stores.files, numbers), database=WatchedStore(stores.database, numbers))


class WatchedStore:
    """A store that is counted. `inner` is the store itself."""

    def __init__(self, inner: BlobStore, numbers: StoreNumbers) -> None:
        self.inner = inner
        self._numbers = numbers
        numbers.expect(inner.name)

    @property
    def name(self) -> str:
        """How rows call this store."""
        return self.inner.name

    def writer(self, key: str) -> "WatchedWriter":
        """A place for new bytes. Raises StorageFullError."""
        watch = _Watch(self._numbers, self.name, "write")
        with watch.running():
            return WatchedWriter(self.inner.writer(key), watch)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB. Raises MissingBlobError."""
        watch = _Watch(self._numbers, self.name, "read")
        try:
            blocks = iter(self.inner.read(key, start, end))
            while True:
                with watch.running():
                    block = next(blocks, None)
                if block is None:
                    return
                yield block
        finally:  # also where the reader has gone
            watch.end()

    def delete(self, key: str) -> None:
        """Forget the bytes, committed or not. No error when there are none."""
        watch = _Watch(self._numbers, self.name, "delete")
        try:
            with watch.running():
                self.inner.delete(key)
        finally:
            watch.end()

    def drop_unfinished(self, older_than_seconds: float) -> int:
        """Drop what was begun so long ago and never committed; returns how many."""
        return self.inner.drop_unfinished(older_than_seconds)

    def check(self) -> None:
        """Raise UnavailableError when the store does not answer."""
        self.inner.check()

    def close(self) -> None:
        """Let go of connections."""
        self.inner.close()


class WatchedWriter:
    """Bytes on their way into a store that is counted."""

    def __init__(self, inner: BlobWriter, watch: "_Watch") -> None:
        self._inner = inner
        self._watch = watch

    def __enter__(self) -> Self:
        with self._watch.running():
            self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            with self._watch.running():
                self._inner.__exit__(*error)
        finally:
            self._watch.end()

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError."""
        with self._watch.running():
            self._inner.write(content)

    def reopen(self) -> BinaryIO:
        """What was written so far, to read and to seek in."""
        with self._watch.running():
            return self._inner.reopen()

    def commit(self) -> None:
        """Make the bytes durable under their key. Raises StorageFullError."""
        with self._watch.running():
            self._inner.commit()


class _Watch:
    """Adds up what the store itself takes for one operation, and tells its first failure."""

    def __init__(self, numbers: StoreNumbers, store: str, operation: Operation) -> None:
        self._numbers = numbers
        self._store = store
        self._operation = operation
        self._seconds = 0.0
        self._has_failed = False

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:
            if not self._has_failed:
                self._numbers.failed(self._store, self._operation, error)
            self._has_failed = True
            raise
        finally:
            self._seconds += time.perf_counter() - begun

    def end(self) -> None:
        self._numbers.done(self._store, self._operation, self._seconds)
