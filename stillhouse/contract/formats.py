"""Tell the format of a file from its content. The service looks closer."""

import itertools
import zlib
from typing import BinaryIO, Final

from stillhouse.contract.archives import IMAGE_SUFFIXES, walk
from stillhouse.contract.bounds import gunzip
from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.resources import UploadFormat

_HEAD: Final = 512
_TAR_MAGIC: Final = slice(257, 262)
# Members that are looked at before an archive is said to be of no known format.
_MOST_MEMBERS: Final = 1000
_SAVED: Final = (".arrow", "state.json", "dataset_info.json", "dataset_dict.json")


def recognise(file: BinaryIO, size: int) -> UploadFormat | None:
    """The format of a data file of `size` bytes, or None; the file is left at its beginning."""
    file.seek(0)
    head = file.read(_HEAD)
    found = _recognise(head, file, size)
    file.seek(0)
    return found


def _recognise(head: bytes, file: BinaryIO, size: int) -> UploadFormat | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK"):
        return _of_archive(file, size, otherwise="npz")
    if head[_TAR_MAGIC] == b"ustar" or (head.startswith(b"\x1f\x8b") and _inner_head(file)[_TAR_MAGIC] == b"ustar"):
        return _of_archive(file, size, otherwise="images")
    if head.startswith((b"\0\0", b"\x1f\x8b")):
        return "idx"
    return "csv" if head and _is_text(head) else None


def _inner_head(file: BinaryIO) -> bytes:
    file.seek(0)
    try:
        return next(gunzip(file), b"")
    except (zlib.error, EOFError):
        return b""


def _of_archive(file: BinaryIO, size: int, *, otherwise: UploadFormat) -> UploadFormat:
    """By its first member that tells; a damaged one is what it would most likely be, so that it is refused as such."""
    try:
        for member in itertools.islice(walk(file, size), _MOST_MEMBERS):
            if member.name.endswith(".npy"):
                return "npz"
            if member.name.endswith(_SAVED):
                return "hugging_face"
            if member.name.lower().endswith(IMAGE_SUFFIXES):
                return "images"
    except StillhouseError:
        pass
    return otherwise


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:  # the last character may be cut through
        text = head[:error.start].decode("utf-8") if error.start >= len(head) - 3 else ""
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text)
