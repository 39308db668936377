"""IDX files, the format of MNIST: a short header, then big-endian values."""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from stillhouse.contract.failures import MalformedIdxError
from worker.engine.data.room import Room, chunks

Array = npt.NDArray[Any]

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 8


def read_idx(path: Path, room: Room | None = None) -> Array:
    """The array that the file holds, gzipped or not, in native byte order. Raises MalformedIdxError."""
    room = room or Room()
    with path.open("rb") as bare:
        zipped = bare.read(2) == GZIP_MAGIC
    try:
        with (gzip.open(path, "rb") if zipped else path.open("rb")) as file:
            return _read(cast("BinaryIO", file), room)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MalformedIdxError(f"the gzipped IDX file is damaged: {error}") from error


def _read(file: BinaryIO, room: Room) -> Array:
    shape, dtype = _read_header(file)
    array = room.array("the IDX file", (prod(shape),), dtype.newbyteorder("="))
    # Straight into the array: the decoded bytes exist once.
    view = array.view(np.uint8).data
    got = 0
    while got < len(view):
        count = file.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            raise MalformedIdxError(f"the IDX file ends after {got:,} of {len(view):,} bytes of data")
        got += count
    if file.read(1):
        raise MalformedIdxError(f"the IDX file goes on after the {len(view):,} bytes that its header declares")
    in_native_order(array, dtype)
    return array.reshape(shape)


def in_native_order(array: Array, stored: np.dtype[Any]) -> None:
    """Turn the bytes of values that were read as they were stored, where they are."""
    if not stored.isnative:
        for part in chunks(array):
            array[part].byteswap(inplace=True)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= MAX_AXES:  # noqa: PLR2004 - the header's own length
        raise MalformedIdxError("the file does not start like IDX: two zero bytes, a known type, the number of axes")
    axes = magic[3]
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise MalformedIdxError("the IDX header ends early")
    return struct.unpack(f">{axes}I", sizes), np.dtype(DTYPES[magic[2]])
