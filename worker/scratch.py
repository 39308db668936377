"""The folder of one attempt, the log of its trainer, and how to take files out of the hands of a trainer."""

import fcntl
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from worker.orders import ProtocolError

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 192 * 1024
_LEAVE_SECONDS = 10.0
_LOOK_SECONDS = 0.01
_GAP = "\n[... {} bytes left out ...]\n"

log = logging.getLogger(__name__)


class GoneError(ProtocolError):
    """The trainer named a file that is not there, or no longer."""


class TrainerLog:
    """What a trainer printed. The file is held open: whatever the trainer does to its name, this one is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "rb")
        self._saved_size = 0
        self._saving = threading.Lock()

    def save(self, write: Callable[[str, bool], None]) -> None:
        """Hand over the text if there is more than at the last time: head and tail, and whether the middle is left out.

        What raises is handed over again.
        """
        with self._saving:
            size = os.fstat(self._file.fileno()).st_size
            if size != self._saved_size:
                write(self._text(size), size > HEAD_BYTES + TAIL_BYTES)
                self._saved_size = size

    def close(self) -> None:
        """Forget it."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _text(self, size: int) -> str:
        if size <= HEAD_BYTES + TAIL_BYTES:
            return self._read(size, 0)
        head, tail = self._read(HEAD_BYTES, 0), self._read(TAIL_BYTES, size - TAIL_BYTES)
        return head + _GAP.format(size - HEAD_BYTES - TAIL_BYTES) + tail

    def _read(self, length: int, offset: int) -> str:
        return os.pread(self._file.fileno(), length, offset).decode(errors="replace")


@contextmanager
def attempt_folder(root: Path, name: str) -> Iterator[tuple[Path, TrainerLog]]:
    """A folder for one attempt and the log beside it; both are gone at the end."""
    with locked_folder(root, name) as folder:
        printed = TrainerLog(folder.with_suffix(".log"))
        try:
            yield folder, printed
        finally:
            printed.close()


@contextmanager
def locked_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder that no sweep takes while the `with` block lasts, or while another process holds it; gone at the end."""
    folder = (root / name).absolute()
    descriptor = _make_locked(folder)
    try:
        yield folder
    finally:
        _await_others(descriptor, folder)
        _remove(folder)
        os.close(descriptor)


def lock(folder: Path) -> int:
    """Show that the folder is in use while the returned descriptor is open. Raises BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def sweep(root: Path) -> None:
    """Remove what workers left that were killed: folders that no supervisor and no trainer holds."""
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        with suppress(BlockingIOError, FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.with_suffix(".log").unlink(missing_ok=True)
                _remove(folder)
            finally:
                os.close(descriptor)


@contextmanager
def produced(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A file that the trainer says it wrote, opened. Raises ProtocolError unless it is a regular file in the folder.

    No link is followed, symbolic or hard, on no part of the way: it could lead to what the trainer must not publish.
    """
    *folders, last = name.split("/")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            descriptor = _step(descriptor, part, os.O_DIRECTORY)
        # Not blocking: opening a pipe waits for a writer.
        descriptor = _step(descriptor, last, os.O_NONBLOCK)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not status.st_size:
            raise ProtocolError(f"{name} is not a regular file with something in it")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            yield file
    finally:
        os.close(descriptor)


def _step(inside: int, name: str, flags: int) -> int:
    """Open a name in an open folder, and close that."""
    try:
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=inside)
    except FileNotFoundError as error:
        raise GoneError(f"{name} is not there") from error
    except OSError as error:
        raise ProtocolError(f"{name} is not a plain file or folder: {error.strerror}") from error
    os.close(inside)
    return found


def _make_locked(folder: Path) -> int:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(BlockingIOError, FileNotFoundError):  # swept before the lock was ours
            descriptor = lock(folder)
            if folder.exists():
                return descriptor
            os.close(descriptor)


def _await_others(descriptor: int, folder: Path) -> None:
    """Wait until nobody else holds the folder: processes that die with the trainer may take a moment."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOOK_SECONDS)
    log.warning("scratch: somebody still holds %s", folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:  # the trainer may have changed permissions; the next sweep tries again
        log.warning("scratch: %s stays: %s", folder, error)
