"""Reads the header of an IDX file (the format of MNIST), gzipped or not."""

import zlib
from collections.abc import Iterator
from math import prod
from typing import BinaryIO

from app.artifacts.inspection.facts import IdxFacts
from stillhouse.contract.bounds import UnpacksTooLargeError, check_expansion, gunzip
from stillhouse.contract.failures import EmptyDataError, MalformedIdxError

_TYPES = {
    0x08: ("uint8", 1), 0x09: ("int8", 1), 0x0B: ("int16", 2), 0x0C: ("int32", 4), 0x0D: ("float32", 4),
    0x0E: ("float64", 8),
}
_AXIS_BYTES = 4
MAX_AXES = 8
_MAX_HEAD = 4 + _AXIS_BYTES * MAX_AXES


def inspect_idx(file: BinaryIO, size: int) -> IdxFacts:
    """Facts of the array. Raises MalformedIdxError or EmptyDataError."""
    is_gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not is_gzipped:
        facts, expected = _facts(file.read(_MAX_HEAD), is_gzipped=False)
        return _sized(facts, expected, size)
    try:
        return _inspect_packed(gunzip(file), size)
    except (zlib.error, EOFError, UnpacksTooLargeError) as error:
        raise MalformedIdxError(f"The file is not sound gzip: {error}.") from error


def _inspect_packed(content: Iterator[bytes], packed: int) -> IdxFacts:
    head = b""
    for piece in content:
        head += piece
        if len(head) >= _MAX_HEAD:
            break
    facts, expected = _facts(head, is_gzipped=True)
    check_expansion(packed, expected)
    unpacked = len(head)
    for piece in content:
        unpacked += len(piece)
        if unpacked > expected:
            break
    return _sized(facts, expected, unpacked)


def _facts(head: bytes, *, is_gzipped: bool) -> tuple[IdxFacts, int]:
    """Facts, and the size in bytes that the whole unpacked file must have."""
    if len(head) < _AXIS_BYTES or head[:2] != b"\0\0" or head[2] not in _TYPES:
        raise MalformedIdxError("The file does not begin as IDX: two zero bytes, a type, a number of axes.")
    dtype, item_bytes = _TYPES[head[2]]
    num_axes = head[3]
    begin = 4 + _AXIS_BYTES * num_axes
    if not 1 <= num_axes <= MAX_AXES or len(head) < begin:
        raise MalformedIdxError(f"An IDX header with {num_axes} axes in a file of {len(head)} bytes cannot be.")
    shape = [int.from_bytes(head[at:at + _AXIS_BYTES], "big") for at in range(4, begin, _AXIS_BYTES)]
    if prod(shape) == 0:
        raise EmptyDataError(f"The array has shape {shape}: no samples.")
    return IdxFacts(dtype=dtype, shape=shape, is_gzipped=is_gzipped), begin + prod(shape) * item_bytes


def _sized(facts: IdxFacts, expected: int, actual: int) -> IdxFacts:
    if actual != expected:
        raise MalformedIdxError(
            f"Shape {facts.shape} of {facts.dtype} makes a file of {expected} bytes, but this one has "
            f"{'only ' if actual < expected else 'at least '}{actual}."
        )
    return facts
