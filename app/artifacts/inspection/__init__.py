"""What an uploaded file's header tells, read without torch or NumPy and without loading the data.

The bytes are hostile: nothing here allocates, unpacks or loops by what the file claims, beyond fixed limits.
"""

from collections.abc import Callable, Mapping
from typing import BinaryIO

from app.artifacts.inspection.facts import ArrayFacts, Facts, IdxFacts, NpzFacts, PytorchFacts, SafetensorsFacts
from app.artifacts.inspection.idx import inspect_idx
from app.artifacts.inspection.npz import inspect_npz
from app.artifacts.inspection.pickles import holds_pickle, is_bare_pickle
from app.artifacts.inspection.pytorch import inspect_pytorch
from app.artifacts.inspection.safetensors import inspect_safetensors
from stillhouse.contract.failures import EmptyUploadError, PickleRefusedError, StillhouseError
from stillhouse.contract.resources import UploadFormat, UploadKind

__all__ = ["ArrayFacts", "Facts", "IdxFacts", "NpzFacts", "PytorchFacts", "SafetensorsFacts", "guess_format", "inspect"]

_INSPECT: Mapping[UploadFormat, Callable[[BinaryIO, int], Facts]] = {
    "safetensors": inspect_safetensors, "pytorch": inspect_pytorch, "idx": inspect_idx, "npz": inspect_npz,
}


def guess_format(file: BinaryIO, kind: UploadKind) -> UploadFormat:
    """The format of an upload that does not name it."""
    file.seek(0)
    is_zip = file.read(2) == b"PK"
    if kind == "teacher":
        return "pytorch" if is_zip else "safetensors"
    return "npz" if is_zip else "idx"


def inspect(file: BinaryIO, size: int, upload_format: UploadFormat) -> Facts:
    """Facts of a file of `size` bytes. Raises the failure that names what is wrong with it."""
    if size == 0:
        raise EmptyUploadError
    file.seek(0)
    try:
        return _INSPECT[upload_format](file, size)
    except StillhouseError as error:
        if is_bare_pickle(file) or (upload_format != "pytorch" and holds_pickle(file, size)):
            raise PickleRefusedError from error
        raise
