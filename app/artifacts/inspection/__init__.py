"""What an uploaded file's header tells, read without torch or NumPy and without loading the data.

The bytes are hostile: nothing here allocates, unpacks or loops by what the file claims, beyond fixed limits.
"""

from collections.abc import Callable, Mapping
from typing import BinaryIO

from app.artifacts.inspection.facts import ArrayFacts, Facts, IdxFacts, NpzFacts, OnnxFacts, SafetensorsFacts
from app.artifacts.inspection.idx import inspect_idx
from app.artifacts.inspection.npz import inspect_npz
from app.artifacts.inspection.onnx import inspect_onnx
from app.artifacts.inspection.pickles import looks_like_pickle
from app.artifacts.inspection.safetensors import inspect_safetensors
from stillhouse.contract.failures import EmptyUploadError, PickleRefusedError, StillhouseError
from stillhouse.contract.resources import UploadFormat, UploadKind

__all__ = ["ArrayFacts", "Facts", "IdxFacts", "NpzFacts", "OnnxFacts", "SafetensorsFacts", "guess_format", "inspect"]

_INSPECT: Mapping[UploadFormat, Callable[[BinaryIO, int], Facts]] = {
    "safetensors": inspect_safetensors, "idx": inspect_idx, "npz": inspect_npz,
    "onnx": inspect_onnx,
}


def guess_format(file: BinaryIO, kind: UploadKind) -> UploadFormat:
    """The format of an upload that does not name it."""
    file.seek(0)
    if kind == "teacher":
        # An ONNX model begins with its version, a small number in field 1; safetensors with the length of its header.
        head = file.read(9)
        return "onnx" if head[:1] == b"\x08" and head[8:9] != b"{" else "safetensors"
    return "npz" if file.read(2) == b"PK" else "idx"


def inspect(file: BinaryIO, size: int, upload_format: UploadFormat) -> Facts:
    """Facts of a file of `size` bytes. Raises the failure that names what is wrong with it."""
    if size == 0:
        raise EmptyUploadError
    file.seek(0)
    try:
        return _INSPECT[upload_format](file, size)
    except StillhouseError as error:
        if looks_like_pickle(file, size):
            raise PickleRefusedError from error
        raise
