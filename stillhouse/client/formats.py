"""Tell what a file is from its content and its name. The service looks closer."""

from pathlib import Path

from stillhouse.client.errors import StillhouseClientError
from stillhouse.contract.formats import recognise
from stillhouse.contract.resources import UploadFormat, UploadKind

_TEACHER_FORMATS: frozenset[UploadFormat] = frozenset({"safetensors", "pytorch", "onnx"})
_TEACHER_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt"})
_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 64


class UnknownFormatError(StillhouseClientError):
    """The file is of no format that the service reads."""


def guess_format(path: Path) -> UploadFormat:
    """The format of a file, or UnknownFormatError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        found = recognise(file, path.stat().st_size)
    if path.suffix.lower() in _TEACHER_SUFFIXES:
        # What else such a file may be, the service refuses with its reason.
        return "pytorch" if head.startswith(_ZIP) else "safetensors"
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if not head:
        raise UnknownFormatError(f"{path.name} is empty")
    if head[8:9] == b"{":
        return "safetensors"
    if found is None:
        raise UnknownFormatError(
            f"cannot tell what {path.name} is; say --format safetensors, pytorch or onnx for a teacher; idx, npz, "
            "parquet, csv, images or hugging_face for data"
        )
    return found


def guess_kind(format: UploadFormat) -> UploadKind:  # noqa: A002 - the API's word
    """What a file of this format serves as."""
    return "teacher" if format in _TEACHER_FORMATS else "data"
