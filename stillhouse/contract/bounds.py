"""Limits on what a compressed file may unpack to, and on how much of a file is read at once."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

MIB = 1024 * 1024
# Sorted labels of a large set shrink 500 times; pictures, even mostly blank ones, less than 100 times.
FREE_BYTES = 64 * MIB
MAX_EXPANSION = 200
_PIECE = 256 * 1024


class UnpacksTooLargeError(ValueError):
    """The file unpacks to more than its own size can honestly hold."""


def check_expansion(packed: int, unpacked: int) -> None:
    """Raise UnpacksTooLargeError where `packed` bytes claim to be `unpacked` bytes and that is beyond belief."""
    if unpacked > max(FREE_BYTES, MAX_EXPANSION * packed):
        raise UnpacksTooLargeError(f"{packed} bytes claim to unpack to {unpacked} bytes")


def gunzip(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file, in pieces of bounded size. Raises zlib.error, or EOFError where it is cut short.

    Unlike the standard library's reader it steps through a hostile header in C.
    """
    packed = file.read(_PIECE)
    while packed:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            content = member.decompress(packed, _PIECE)
            yield content
            packed = member.unconsumed_tail or member.unused_data or file.read(_PIECE)
            if not (packed or content or member.eof):
                raise EOFError("the gzip stream ends too soon")
        packed = packed.lstrip(b"\0")


class Frugal(io.RawIOBase):
    """A file that refuses to be read in large pieces: whoever parses it cannot be made to fill the memory."""

    def __init__(self, file: BinaryIO, size: int, largest: int) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._largest = largest

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The present offset."""
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, or all that is left. Raises UnpacksTooLargeError beyond the limit."""
        wanted = self._size - self.tell() if size is None or size < 0 else size
        if wanted > self._largest:
            raise UnpacksTooLargeError(f"a part of {wanted} bytes is larger than {self._largest} bytes")
        return self._file.read(wanted)
