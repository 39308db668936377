"""NPZ archives, read without pickle."""

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from stillhouse.contract.failures import MalformedNpzError, UnknownArrayError, UnusableArrayError
from worker.engine.data.idx import in_native_order
from worker.engine.data.limits import check_decoded_size
from worker.engine.data.room import Room

Array = npt.NDArray[Any]

CHUNK_BYTES = 16 * 1024**2
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, name: str, room: Room | None = None) -> Array:
    """The array of that name. Raises MalformedNpzError, UnknownArrayError or UnusableArrayError."""
    room = room or Room()
    try:
        with zipfile.ZipFile(path) as archive:
            with _open(archive, name) as member:
                header = _read_header(member, name, archive.getinfo(f"{name}.npy").file_size)
                if header.is_plain:
                    return _read_plain(member, name, header, room)
            check_decoded_size(f"the array {name!r}", header.shape, header.dtype.itemsize)
            with _open(archive, name) as member:
                array: Array = npy.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise MalformedNpzError(f"the array {name!r} cannot be read: {error}") from error
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _open(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(f"{name}.npy")
    except KeyError as error:
        names = sorted(member.removesuffix(".npy") for member in archive.namelist())
        raise UnknownArrayError(f"the file has no array {name!r}; it has {', '.join(names[:20]) or 'none'}") from error
    except RuntimeError as error:  # encrypted
        raise MalformedNpzError(f"the array {name!r} cannot be read: {error}") from error


class _Header(NamedTuple):
    """What a member says of itself."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are numbers in the order of the array."""
        return self.dtype.kind in "biuf" and not self.is_fortran


def _read_header(member: IO[bytes], name: str, stored_bytes: int) -> _Header:
    """Before anything of the declared size is allocated."""
    read_header = _HEADER_READERS.get(npy.read_magic(member))
    if read_header is None:
        raise MalformedNpzError(f"the array {name!r} is of an unknown version of the NPY format")
    header = _Header(*read_header(member))
    if header.dtype.hasobject:
        raise UnusableArrayError(f"the array {name!r} holds Python objects; save it as numbers")
    if prod(header.shape) * header.dtype.itemsize > stored_bytes:
        raise MalformedNpzError(f"the array {name!r} declares more data than the file holds")
    return header


def _read_plain(member: IO[bytes], name: str, header: _Header, room: Room) -> Array:
    """Straight into the array: the decoded bytes exist once."""
    array = room.array(f"the array {name!r}", (prod(header.shape),), header.dtype.newbyteorder("="))
    view, got = array.view(np.uint8).data, 0
    while got < len(view):
        count = member.readinto(view[got:got + CHUNK_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"it ends after {got:,} of {len(view):,} bytes")
        got += count
    in_native_order(array, header.dtype)
    return array.reshape(header.shape)
