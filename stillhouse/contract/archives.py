"""Archives of strangers, tar (plain or gzipped) and zip: which members may be read, and how much of them.

Members are given one after the other and nothing is ever written to disk. API and engine walk archives by the same
rules, so that what was let in at upload is what is read later.
"""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO, Final

from stillhouse.contract.bounds import (
    FREE_BYTES,
    MAX_EXPANSION,
    MIB,
    Frugal,
    UnpacksTooLargeError,
    check_expansion,
    gunzip,
)
from stillhouse.contract.failures import ArchiveTooLargeError, MalformedArchiveError, UnsafeArchiveError

MAX_MEMBERS: Final = 200_000
MAX_NAME: Final = 1024
MAX_READ: Final = 2 * 1024 * MIB
# Names of 80 characters for all of them; the standard library makes it ten times as large in memory.
MAX_DIRECTORY: Final = 24 * MIB
IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
# Left out in silence, these would be missed.
_OTHER_IMAGES: Final = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".ppm", ".pgm")

_PIECE: Final = 256 * 1024
_ENCRYPTED: Final = 0x1
_UTF8_NAME: Final = 0x800
_BLOCK: Final = 512
# Everything that zipfile and tarfile raise on a file that is not sound.
_ERRORS: Final = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError,
    ValueError, zlib.error,
)


@dataclass(frozen=True)
class Member:
    """A plain file of an archive. It can be read until the next one is asked for."""

    name: str  # parts joined by `/`, none of them empty, `.` or `..`
    size: int  # in bytes, unpacked, as the archive claims
    _open: Callable[[], IO[bytes] | None]

    def open(self) -> "MemberFile":
        """Its content. Whatever is wrong with it is a MalformedArchiveError that names it."""
        return MemberFile(self)

    def read(self, most: int) -> bytes:
        """All of it. Raises ArchiveTooLargeError beyond `most` bytes."""
        if self.size > most:
            raise ArchiveTooLargeError(f"Member `{self.name}` has {self.size:,} bytes; at most {most:,} are read.")
        with self.open() as file:
            return file.read()


class MemberFile(io.RawIOBase):
    """Reads a member, in small pieces and never more of it than the archive claimed."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self._member = member
        self._left = member.size
        with _told(member.name):
            file = member._open()  # noqa: SLF001 - its own other half
        assert file is not None  # noqa: S101 - tarfile has none for folders and links
        self._file = file

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or all that are left; fewer only at the end. Raises MalformedArchiveError."""
        wanted = self._left if size < 0 else min(size, self._left)
        if wanted > MAX_READ:
            raise MalformedArchiveError(f"Member `{self._member.name}` has a part of {wanted:,} bytes.")
        content = bytearray()
        with _told(self._member.name):
            while len(content) < wanted:
                piece = self._file.read(min(wanted - len(content), _PIECE))
                if not piece:
                    raise EOFError(f"{self._left - len(content):,} bytes are missing at its end")
                content += piece
        self._left -= len(content)
        return bytes(content)

    def close(self) -> None:
        """Let go of the archive's own reader."""
        if not self.closed:
            self._file.close()
        super().close()


def is_image(name: str) -> bool:
    """Whether a member is an encoded image by its name. Raises MalformedArchiveError for formats that are not read."""
    if name.lower().endswith(_OTHER_IMAGES):
        raise MalformedArchiveError(f"Member `{name}` is an image that is not read; make it PNG, JPEG or WebP.")
    return name.lower().endswith(IMAGE_SUFFIXES)


def below(name: str, folder: str | None) -> str | None:
    """The rest of a member's name below a folder; None when it is elsewhere."""
    if folder is None:
        return name
    prefix = folder.strip("/") + "/"
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def find_folder(given: str | None, split: str, folders: Iterable[str]) -> str | None:
    """The one of the folders of saved splits that a split is read from; None where none is meant, or several may be."""
    known = list(folders)
    if given is not None:
        return given.strip("/") if given.strip("/") in known else None
    named = [folder for folder in known if folder.rpartition("/")[2] == split]
    candidates = known if len(known) == 1 else named
    return candidates[0] if len(candidates) == 1 else None


def walk(file: BinaryIO, size: int) -> Iterator[Member]:
    """Each plain file of an archive of `size` bytes, in its order; hidden ones and folders are passed over.

    Raises MalformedArchiveError, UnsafeArchiveError for any member that is no plain file inside the archive, or
    ArchiveTooLargeError.
    """
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    is_packed = magic.startswith(b"\x1f\x8b")
    seen: set[str] = set()
    for member in _told_while(
        _of_zip(file, size) if magic.startswith(b"PK") else _of_tar(file, size, is_packed=is_packed)
    ):
        if not member.name:
            raise MalformedArchiveError("The archive has a file without a name.")
        if member.name in seen:
            raise MalformedArchiveError(f"The archive repeats the name `{member.name}`.")
        seen.add(member.name)
        if not _is_hidden(member.name):
            yield member


def _of_zip(file: BinaryIO, size: int) -> Iterator[Member]:
    with zipfile.ZipFile(Frugal(file, size, MAX_DIRECTORY)) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise _too_many()
        check_expansion(size, sum(info.file_size for info in infos))
        for info in infos:
            name = _inside(_zip_name(info))
            _check_zip_member(info, name)
            if not info.filename.endswith("/"):  # not is_dir(), which fails where there is no name
                yield Member(name, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]


def _zip_name(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _UTF8_NAME or info.orig_filename.isascii():
        return info.orig_filename
    try:  # macOS writes UTF-8 without saying so
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError as error:
        raise MalformedArchiveError(f"The name {info.orig_filename!r} is not UTF-8: rename the file.") from error


def _check_zip_member(info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise UnsafeArchiveError(f"Member `{name}` is encrypted; pack it without a password.")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise MalformedArchiveError(f"Member `{name}` is packed in an unusual way; use store or deflate.")
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise UnsafeArchiveError(f"Member `{name}` is a link or a device; pack plain files only.")


def _of_tar(file: BinaryIO, size: int, *, is_packed: bool) -> Iterator[Member]:
    tape = _Unpacked(file, size) if is_packed else _Plain(file)
    count = 0
    with tarfile.open(fileobj=tape, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep every one
            count += 1
            if count > MAX_MEMBERS:
                raise _too_many()
            name = _inside(_tar_name(info))
            if not (info.isdir() or info.isreg()) or info.issparse():
                raise UnsafeArchiveError(f"Member `{name}` is a link, a device or sparse; pack plain files only.")
            if info.isreg():
                yield Member(name, info.size, lambda info=info: archive.extractfile(info))  # type: ignore[misc]
    # To tarfile a damaged header looks like the end, and so does a file cut between two members.
    if not tape.last or tape.last.strip(b"\0"):
        raise MalformedArchiveError(f"The archive is damaged or cut short after {count:,} members.")


def _tar_name(info: tarfile.TarInfo) -> str:
    try:
        info.name.encode("utf-8")
    except UnicodeError as error:
        raise MalformedArchiveError(f"The name {info.name!r} is not UTF-8: rename the file.") from error
    return info.name


def _inside(name: str) -> str:
    """The name in its plainest form. Raises UnsafeArchiveError for one that leads outside."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise UnsafeArchiveError(f"Member `{name[:MAX_NAME]}` would lie outside the archive; pack relative paths.")
    if len(name) > MAX_NAME:
        raise MalformedArchiveError(f"A member's name has {len(name):,} characters; at most {MAX_NAME:,} are read.")
    return "/".join(part for part in parts if part not in {"", "."})


def _is_hidden(name: str) -> bool:
    """Whether it is what file managers leave behind, such as .DS_Store."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _too_many() -> ArchiveTooLargeError:
    return ArchiveTooLargeError(f"The archive has more than {MAX_MEMBERS:,} members; write its samples into Parquet.")


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise MalformedArchiveError(f"Member `{name}` cannot be read: {error}.") from error


def _told_while(members: Iterator[Member]) -> Iterator[Member]:
    while True:
        try:
            member = next(members)
        except StopIteration:
            return
        except UnpacksTooLargeError as error:
            raise ArchiveTooLargeError(f"The archive is larger than it can honestly be: {error}.") from error
        except _ERRORS as error:
            raise MalformedArchiveError(f"The file is not a sound tar or zip archive: {error}.") from error
        yield member


class _Tape(io.RawIOBase):
    """What tarfile reads: never a large piece, since headers that claim to be long would fill the memory."""

    last = b""  # what was read last: at the end of a sound archive nothing, or zeros

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MIB:
            raise ValueError(f"a header of {size} bytes is longer than {MIB} bytes")
        self.last = self._take(size)
        return self.last

    def _take(self, size: int) -> bytes:
        raise NotImplementedError


class _Plain(_Tape):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _take(self, size: int) -> bytes:
        return self._file.read(size)


class _Unpacked(_Tape):
    """A gzip stream that can be wound forward only."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._pieces = gunzip(file)
        self._most = max(FREE_BYTES, MAX_EXPANSION * size)
        self._piece = memoryview(b"")
        self._place = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._place:
            raise ValueError("a packed archive is read from its beginning to its end")
        while self._place < offset and self._advance(offset - self._place):
            pass
        return self._place

    def _take(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size and (piece := self._advance(size - len(content))):
            content += piece
        return bytes(content)

    def _advance(self, most: int) -> memoryview:
        """Up to `most` bytes further on; none at the end."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._piece = memoryview(piece)
        taken, self._piece = self._piece[:most], self._piece[most:]
        self._place += len(taken)
        if self._place > self._most:
            raise ArchiveTooLargeError(f"The archive unpacks to more than {self._most:,} bytes.")
        return taken
