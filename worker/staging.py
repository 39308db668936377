"""Inputs on the worker's own disk: a cache by content, least recently used out first.

Nothing in it is trusted. A trainer runs as the same user and may have written to it, so each file is hashed
before each use, and files are copies, never links into the blob store.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from stillhouse.contract.failures import StagingFailedError
from worker.scratch import locked_folder, sweep

_MAX_FETCHES = 3
_LENT = "lent"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """A file that a job reads: its digest and size, and how to fetch it (in blocks)."""

    sha256: str
    size: int
    fetch: Callable[[], Iterator[bytes]]


class Cache:
    """A folder of files named by their sha256, kept below a size as far as what is in use allows.

    Any number of workers may share the folder: whoever uses a file holds a shared lock on it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def staged(self, inputs: Mapping[str, Input]) -> Iterator[dict[str, Path]]:
        """The inputs as local files, verified, and kept while the `with` block lasts.

        Raises StagingFailedError when a store does not give the bytes that the digest promises, OSError.
        """
        with ExitStack() as held:
            yield {name: self._stage(wanted, held) for name, wanted in inputs.items()}

    @contextmanager
    def lending(self, name: str) -> Iterator[Path]:
        """A folder for files that an attempt asks for later (`show`): its sandbox is closed before they are known."""
        (self._folder / _LENT).mkdir(exist_ok=True, mode=0o700)
        with locked_folder(self._folder / _LENT, name) as folder:
            yield folder

    def sweep(self) -> None:
        """Remove what workers left that were killed."""
        with suppress(FileNotFoundError):
            sweep(self._folder / _LENT)

    def _stage(self, wanted: Input, held: ExitStack) -> Path:
        path = self._folder / wanted.sha256
        for _ in range(_MAX_FETCHES):
            if self._is_usable(path, wanted, held):
                return path.absolute()
            self._make_room(wanted.size)
            self._fetch(wanted, path)
        if self._is_usable(path, wanted, held):
            return path.absolute()
        raise StagingFailedError(f"The worker's disk does not keep an input intact: {wanted.sha256}.")

    def _is_usable(self, path: Path, wanted: Input, held: ExitStack) -> bool:
        try:
            file = held.enter_context(path.open("rb"))
        except FileNotFoundError:
            return False
        fcntl.flock(file, fcntl.LOCK_SH)
        if _digest(file) != wanted.sha256:
            log.warning("cache: %s is damaged; fetched anew", path.name)
            path.unlink(missing_ok=True)
            return False
        if not _is_at(file, path):  # it was evicted before the lock was ours
            return False
        os.utime(path)
        return True

    def _fetch(self, wanted: Input, path: Path) -> None:
        temporary = self._folder / f".{wanted.sha256}-{secrets.token_hex(4)}"
        digest = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                # An abandoned one can be told from one that is being written by its lock.
                fcntl.flock(file, fcntl.LOCK_EX)
                for block in wanted.fetch():
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != wanted.sha256:
                raise StagingFailedError(
                    f"An input does not have the digest it was stored with: {digest.hexdigest()}, not {wanted.sha256}."
                )
            with suppress(FileExistsError):  # another worker was faster
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove files that nobody uses, the least recently used first, until so many bytes fit."""
        files = sorted(_files(self._folder), key=lambda found: found[0].st_mtime_ns)
        excess = sum(status.st_size for status, _ in files) + size - self._max_bytes
        for status, path in files:
            if excess <= 0:
                return
            if _remove_unused(path):
                excess -= status.st_size


def show(path: Path, place: Path) -> Path:
    """Have a staged file appear at another place too, where it is read only; the place. Raises OSError."""
    place.unlink(missing_ok=True)  # it may have been staged anew since
    try:
        place.hardlink_to(path)
    except OSError:  # a disk that has no links
        shutil.copyfile(path, place)
    return place


def _files(folder: Path) -> Iterator[tuple[os.stat_result, Path]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                yield status, path


def _remove_unused(path: Path) -> bool:
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _is_at(file: BufferedReader, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
