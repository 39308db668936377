"""Recognises Python pickles, alone or inside a zip, without opening them."""

import pickletools
import zipfile
import zlib
from typing import BinaryIO

from stillhouse.contract.bounds import MIB, Frugal

_HEAD = 64 * 1024
_PROTOCOLS = range(2, 6)
MAX_DIRECTORY = MIB
# Everything that zipfile raises on a file that is not a sound zip.
ZIP_ERRORS = (
    zipfile.BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError, ValueError, zlib.error,
)


def is_bare_pickle(file: BinaryIO, *, may_be_text: bool = False) -> bool:
    """Whether a file that is not what it was said to be is a pickle: PyTorch's .pt of old, NumPy's objects.

    Of a file that `may_be_text` without being a pickle, such as a table, only the newer protocols can be told.
    """
    file.seek(0)
    head = file.read(_HEAD)
    is_binary = head[:1] == b"\x80" and len(head) > 1 and head[1] in _PROTOCOLS
    return is_binary or (not may_be_text and not head.startswith(b"PK") and _is_text_pickle(head))


def holds_pickle(file: BinaryIO, size: int) -> bool:
    """Whether the file is a zip with a member that is a pickle by name."""
    try:
        with zipfile.ZipFile(Frugal(file, size, MAX_DIRECTORY)) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    except ZIP_ERRORS:
        return False


def _is_text_pickle(head: bytes) -> bool:
    """Protocols 0 and 1 have no magic bytes: it is one if it reads as one up to the end or to an import."""
    try:
        return any(code.name in {"STOP", "GLOBAL"} for code, _, _ in pickletools.genops(head))
    except (ValueError, UnicodeDecodeError):
        return False
