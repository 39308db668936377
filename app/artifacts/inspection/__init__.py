"""What an uploaded file's header tells, read without torch or NumPy and without loading the data.

The bytes are hostile: nothing here allocates, unpacks or loops by what the file claims, beyond fixed limits.
"""

import io
from collections.abc import Callable, Mapping
from typing import BinaryIO

from app.artifacts.inspection.facts import (
    ArrayFacts,
    CsvFacts,
    Facts,
    HuggingFaceFacts,
    IdxFacts,
    ImagesFacts,
    NpzFacts,
    OnnxFacts,
    ParquetFacts,
    PytorchFacts,
    SafetensorsFacts,
)
from app.artifacts.inspection.hugging_face import inspect_hugging_face
from app.artifacts.inspection.idx import inspect_idx
from app.artifacts.inspection.images import inspect_images
from app.artifacts.inspection.npz import inspect_npz
from app.artifacts.inspection.onnx import inspect_onnx
from app.artifacts.inspection.parquet import inspect_parquet
from app.artifacts.inspection.pickles import holds_pickle, is_bare_pickle
from app.artifacts.inspection.pytorch import inspect_pytorch
from app.artifacts.inspection.safetensors import inspect_safetensors
from app.artifacts.inspection.table import inspect_csv
from stillhouse.contract.failures import EmptyUploadError, PickleRefusedError, StillhouseError
from stillhouse.contract.formats import recognise
from stillhouse.contract.resources import UploadFormat, UploadKind

__all__ = [
    "ArrayFacts", "CsvFacts", "Facts", "HuggingFaceFacts", "IdxFacts", "ImagesFacts", "NpzFacts", "OnnxFacts",
    "ParquetFacts", "PytorchFacts", "SafetensorsFacts", "guess_format", "inspect",
]

_INSPECT: Mapping[UploadFormat, Callable[[BinaryIO, int], Facts]] = {
    "safetensors": inspect_safetensors, "idx": inspect_idx, "npz": inspect_npz, "parquet": inspect_parquet,
    "images": inspect_images, "hugging_face": inspect_hugging_face, "csv": inspect_csv, "onnx": inspect_onnx,
    "pytorch": inspect_pytorch,
}

# A table is text, and a tar begins with the name of its first member.
_BEGIN_AS_TEXT = frozenset({"csv", "images", "hugging_face"})


def guess_format(file: BinaryIO, kind: UploadKind) -> UploadFormat:
    """The format of an upload that does not name it."""
    if kind == "teacher":
        # A PyTorch checkpoint is a zip. An ONNX model begins with its version, a small number in field 1; safetensors
        # with the length of its header.
        file.seek(0)
        head = file.read(9)
        if head.startswith(b"PK"):
            return "pytorch"
        return "onnx" if head[:1] == b"\x08" and head[8:9] != b"{" else "safetensors"
    return recognise(file, file.seek(0, io.SEEK_END)) or "idx"


def inspect(file: BinaryIO, size: int, upload_format: UploadFormat) -> Facts:
    """Facts of a file of `size` bytes. Raises the failure that names what is wrong with it."""
    if size == 0:
        raise EmptyUploadError
    file.seek(0)
    try:
        return _INSPECT[upload_format](file, size)
    except StillhouseError as error:
        is_bare = is_bare_pickle(file, may_be_text=upload_format in _BEGIN_AS_TEXT)
        if is_bare or (upload_format != "pytorch" and holds_pickle(file, size)):
            raise PickleRefusedError from error
        raise
