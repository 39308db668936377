"""How what a client sent becomes an artifact, whichever way its bytes came: checked, inspected, then kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app.artifacts.inspection import guess_format, inspect
from app.artifacts.models import ArtifactRow
from app.artifacts.service import Intake
from stillhouse.contract.failures import (
    ArchiveTooLargeError,
    DigestMismatchError,
    EmptyDataError,
    EmptyUploadError,
    InvalidRequestError,
    MalformedArchiveError,
    MalformedCsvError,
    MalformedDatasetError,
    MalformedIdxError,
    MalformedNpzError,
    MalformedOnnxError,
    MalformedParquetError,
    MalformedPytorchError,
    MalformedSafetensorsError,
    PickleRefusedError,
    StillhouseError,
    StorageFullError,
    UnsafeArchiveError,
)
from stillhouse.contract.resources import UploadFormat, UploadKind

_FORMATS: dict[UploadKind, tuple[UploadFormat, ...]] = {
    "teacher": ("safetensors", "pytorch", "onnx"),
    "data": ("idx", "npz", "parquet", "images", "hugging_face", "csv"),
}
# What `keep` may raise, for OpenAPI.
FAILURES: Final[tuple[type[StillhouseError], ...]] = (
    EmptyUploadError, DigestMismatchError, StorageFullError, MalformedSafetensorsError, MalformedPytorchError,
    MalformedIdxError, MalformedNpzError, MalformedOnnxError, MalformedParquetError, MalformedCsvError,
    MalformedArchiveError, UnsafeArchiveError, ArchiveTooLargeError, MalformedDatasetError, PickleRefusedError,
    EmptyDataError,
)


@dataclass(frozen=True)
class Wanted:
    """What the client says that its bytes are."""

    kind: UploadKind
    name: str
    # Guessed from the content when left out.
    format: UploadFormat | None = None
    # What the bytes must have, as hex.
    sha256: str | None = None


def check_format(wanted: Wanted) -> None:
    """Refuse a format that files of this kind do not come in. Raises InvalidRequestError."""
    allowed = _FORMATS[wanted.kind]
    if wanted.format is not None and wanted.format not in allowed:
        raise InvalidRequestError(
            f"A {wanted.kind} comes as {' or '.join(allowed)}, not {wanted.format}.", param="format"
        )


def keep(
    intake: Intake, wanted: Wanted, *, also: Callable[[Session, ArtifactRow], None] | None = None
) -> ArtifactRow:
    """Inspect what has come in and keep it as an artifact. `also` works in the transaction that keeps it.

    Raises the failures of FAILURES, and what `also` raises.
    """
    if intake.size == 0:
        raise EmptyUploadError
    if wanted.sha256 is not None and wanted.sha256.lower() != intake.sha256:
        raise DigestMismatchError(param="sha256")
    with intake.reopen() as file:
        found = wanted.format or guess_format(file, wanted.kind)
        facts = inspect(file, intake.size, found)
    return intake.finish(kind=wanted.kind, name=wanted.name, format=found, facts=facts.as_json(), also=also)
