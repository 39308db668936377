"""Reads the headers of the arrays in an NPZ file (a zip of NumPy's .npy files), without NumPy."""

import ast
import re
import zipfile
from math import prod
from typing import IO, Any, BinaryIO

from app.artifacts.inspection.facts import ArrayFacts, NpzFacts
from app.artifacts.inspection.pickles import MAX_DIRECTORY, ZIP_ERRORS, holds_pickle
from stillhouse.contract.bounds import Frugal, check_expansion
from stillhouse.contract.failures import EmptyDataError, MalformedNpzError, PickleRefusedError

MAX_ARRAYS = 1024
MAX_AXES = 32
# NumPy's own limit: parsing a longer one may exhaust the stack.
MAX_HEADER = 10_000
_MAGIC = b"\x93NUMPY"
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_SIMPLE = re.compile(r"[<>|=]?([biufc])(1|2|4|8|16)")
_ENCRYPTED = 0x1


def inspect_npz(file: BinaryIO, size: int) -> NpzFacts:
    """Facts of every array. Raises MalformedNpzError, PickleRefusedError or EmptyDataError."""
    if holds_pickle(file, size):
        raise PickleRefusedError
    try:
        with zipfile.ZipFile(Frugal(file, size, MAX_DIRECTORY)) as archive:
            members = _members(archive)
            check_expansion(size, sum(member.file_size for member in members))
            arrays = {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except ZIP_ERRORS as error:
        raise MalformedNpzError(f"The file is not a sound zip of arrays: {error}.") from error
    if not arrays:
        raise EmptyDataError("The NPZ file holds no arrays.")
    return NpzFacts(arrays=arrays)


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(members) > MAX_ARRAYS or len(names) < len(members):
        raise MalformedNpzError(f"The zip repeats a name, or has more than {MAX_ARRAYS} members.")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise MalformedNpzError(f"Member `{member.filename[:200]}` is not an array (.npy).")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise MalformedNpzError(f"Member `{member.filename[:200]}` is encrypted or packed in an unusual way.")
    return members


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayFacts:
    name = member.filename.removesuffix(".npy")[:200]
    with archive.open(member) as content:
        header, begin = _header(content, name)
    descr, shape = header["descr"], header["shape"]
    if _has_objects(descr):
        raise PickleRefusedError(
            f"Array `{name}` holds Python objects, which NumPy stores as a pickle; convert it to a plain number type."
        )
    simple = _SIMPLE.fullmatch(descr) if isinstance(descr, str) else None
    if simple is None:
        return ArrayFacts(dtype=str(descr)[:200], shape=list(shape))
    kind, item_bytes = simple[1], int(simple[2])
    expected = begin + prod(shape) * item_bytes
    if member.file_size != expected:
        raise MalformedNpzError(
            f"Array `{name}` of shape {list(shape)} takes {expected} bytes, but the file holds {member.file_size}."
        )
    return ArrayFacts(dtype="bool" if kind == "b" else f"{_KINDS[kind]}{8 * item_bytes}", shape=list(shape))


def _header(content: IO[bytes], name: str) -> tuple[dict[str, Any], int]:
    """The header of a .npy file, and where its data begins."""
    magic = content.read(8)
    if magic[:6] != _MAGIC or magic[6:7] not in {b"\1", b"\2", b"\3"}:
        raise MalformedNpzError(f"Array `{name}` does not begin as a .npy file.")
    length_bytes = 2 if magic[6] == 1 else 4
    length = int.from_bytes(content.read(length_bytes), "little")
    if length > MAX_HEADER:
        raise MalformedNpzError(f"Array `{name}` has a header of {length} bytes; NumPy reads up to {MAX_HEADER}.")
    try:
        header = ast.literal_eval(content.read(length).decode("utf-8" if magic[6] == 3 else "latin-1").strip())  # noqa: PLR2004 - .npy version 3
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise MalformedNpzError(f"Array `{name}` has a header that cannot be read.") from error
    if not _is_header(header):
        raise MalformedNpzError(f"Array `{name}` has a header without dtype, order and shape.")
    return header, len(magic) + length_bytes + length


def _is_header(header: object) -> bool:
    match header:
        case {"descr": str() | list(), "fortran_order": bool(), "shape": tuple(shape)}:
            return len(shape) <= MAX_AXES and all(
                isinstance(length, int) and not isinstance(length, bool) and 0 <= length < 2**63 for length in shape
            )
    return False


def _has_objects(descr: str | list[Any]) -> bool:
    """Whether a dtype, or a field of it, holds Python objects."""
    if isinstance(descr, str):
        return "O" in descr
    return any(_has_objects(field[1]) for field in descr if isinstance(field, tuple) and len(field) > 1)
