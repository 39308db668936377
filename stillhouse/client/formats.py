"""Tell what a file is from its first bytes and its name. The service looks closer."""

import gzip
import zlib
from pathlib import Path

from stillhouse.client.errors import StillhouseClientError
from stillhouse.contract.resources import UploadFormat, UploadKind

_TEACHER_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt"})
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 64


class UnknownFormatError(StillhouseClientError):
    """The file is of no format that the service reads."""


def guess_format(path: Path) -> UploadFormat:
    """The format of a file, or UnknownFormatError."""
    head = _head(path)
    if path.suffix.lower() in _TEACHER_SUFFIXES:
        # What else such a file may be, the service refuses with its reason.
        return "pytorch" if head.startswith(_ZIP) else "safetensors"
    if head.startswith(_ZIP):
        return "npz"
    if head[:2] == b"\0\0" and len(head) > 3:  # noqa: PLR2004 - the magic number of IDX is 4 bytes
        return "idx"
    if head[8:9] == b"{":
        return "safetensors"
    if not head:
        raise UnknownFormatError(f"{path.name} is empty")
    raise UnknownFormatError(
        f"cannot tell what {path.name} is; say --format safetensors or pytorch for weights, idx or npz for data"
    )


def guess_kind(format: UploadFormat) -> UploadKind:  # noqa: A002 - the API's word
    """What a file of this format serves as."""
    return "teacher" if format in {"safetensors", "pytorch"} else "data"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return _inflated_head(path) if head.startswith(_GZIP) else head


def _inflated_head(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnknownFormatError(f"{path.name} looks like gzip, but is damaged: {error}") from error
