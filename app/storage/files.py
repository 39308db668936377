"""Blobs as files of a local folder."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from app.kit.ids import new_id
from app.storage.base import BLOCK, MissingBlobError
from stillhouse.contract.failures import StorageFullError

# EFBIG: a limit of the file system or of the process, which to the user is the same.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BYTES_BETWEEN_LOOKS = 64 * BLOCK


class FileStore:
    """A folder. Files appear in it whole, by renaming."""

    name = "files"

    def __init__(self, folder: Path, *, min_free_bytes: int = 0) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._min_free_bytes = min_free_bytes
        self._incoming.mkdir(parents=True, exist_ok=True)

    def writer(self, key: str) -> "FileWriter":
        """A temporary file, renamed into place by the commit. Raises StorageFullError."""
        self.check_room()
        return FileWriter(self, self._incoming / key, self._path(key))

    def check_room(self) -> None:
        """Refuse to take the last room on the disk. Raises StorageFullError."""
        if shutil.disk_usage(self._incoming).free < self._min_free_bytes:
            raise StorageFullError

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB. Raises MissingBlobError."""
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError as error:
            raise MissingBlobError(key) from error
        with file:
            position = file.seek(start)
            stop = os.fstat(file.fileno()).st_size if end is None else end
            while position < stop:
                block = file.read(min(BLOCK, stop - position))
                if not block:
                    raise MissingBlobError(key)
                position += len(block)
                yield block

    def delete(self, key: str) -> None:
        """Remove the file, committed or not."""
        for path in (self._path(key), self._incoming / key):
            path.unlink(missing_ok=True)

    def drop_unfinished(self, older_than_seconds: float) -> int:
        """Remove temporary files that were not written to for so long."""
        limit, num_dropped = time.time() - older_than_seconds, 0
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer is ready, or another sweep was faster
                if path.stat().st_mtime < limit:
                    path.unlink()
                    num_dropped += 1
        return num_dropped

    def check(self) -> None:
        """Raises StorageFullError or OSError where no file can be made."""
        with self.writer(new_id("blob")):
            pass

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, key: str) -> Path:
        return self.folder / key[-2:] / key


class FileWriter:
    """A file that is not there yet."""

    def __init__(self, store: FileStore, temporary: Path, final: Path) -> None:
        self._store = store
        self._temporary = temporary
        self._final = final
        self._unlooked = 0
        with _full_told():
            self._file = temporary.open("xb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError."""
        with _full_told():
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest):]
        self._unlooked += len(content)
        if self._unlooked >= _BYTES_BETWEEN_LOOKS:
            self._unlooked = 0
            self._store.check_room()

    def reopen(self) -> BinaryIO:
        """What was written so far, to read and to seek in."""
        return self._temporary.open("rb")

    def commit(self) -> None:
        """Bring the bytes to the disk, then rename: a power cut leaves all or nothing. Raises StorageFullError."""
        with _full_told():
            os.fsync(self._file.fileno())
            self._file.close()
            self._final.parent.mkdir(exist_ok=True)
            self._temporary.rename(self._final)
            for folder in (self._final.parent, self._final.parent.parent):
                _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot sync a folder, and need not.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError from error
        raise
