"""NPZ archives, read without pickle."""

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from stillhouse.contract.failures import MalformedNpzError, UnknownArrayError, UnusableArrayError
from worker.engine.data.limits import check_decoded_size

Array = npt.NDArray[Any]

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, name: str) -> Array:
    """The array of that name. Raises MalformedNpzError, UnknownArrayError or UnusableArrayError."""
    try:
        with zipfile.ZipFile(path) as archive:
            with _open(archive, name) as member:
                _check_header(member, name, archive.getinfo(f"{name}.npy").file_size)
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


def _check_header(member: IO[bytes], name: str, stored_bytes: int) -> None:
    """Before anything of the declared size is allocated."""
    read_header = _HEADER_READERS.get(npy.read_magic(member))
    if read_header is None:
        raise MalformedNpzError(f"the array {name!r} is of an unknown version of the NPY format")
    shape, _, dtype = read_header(member)
    if dtype.hasobject:
        raise UnusableArrayError(f"the array {name!r} holds Python objects; save it as numbers")
    check_decoded_size(f"the array {name!r}", shape, dtype.itemsize)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > stored_bytes:
        raise MalformedNpzError(f"the array {name!r} declares more data than the file holds")
