"""The compressed model as a file: read with suspicion, checked against its manifest, given back as a torch module."""

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor, nn

from stillhouse.contract.failures import LibraryMissingError, StillhouseError
from stillhouse.contract.spec import Architecture
from stillhouse.models.checkpoint import build_with
from stillhouse.models.preprocessing import Preprocessing, RawBatch
from stillhouse.models.registry import outlined
from stillhouse.models.weights import check_weights

WEIGHTS: Final = "model.safetensors"
ONNX: Final = "model.onnx"
CONFIG: Final = "config.json"
PREPROCESSING: Final = "preprocessing.json"
LABELS: Final = "labels.json"
MANIFEST: Final = "manifest.json"

_NEEDED: Final = (WEIGHTS, CONFIG, PREPROCESSING, LABELS)
# Weights lie uncompressed, so that they are no bigger than the file itself; a text may grow to this when opened.
_STORED: Final = frozenset({WEIGHTS, ONNX})
_MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
_MAX_MEMBERS: Final = 64
_CHUNK: Final = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class InvalidBundleError(ValueError):
    """The file is not a Stillhouse bundle, or it was damaged or changed after it was made."""


class FileRecord(BaseModel):
    """What a file of the bundle must be."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="In bytes.")


class Manifest(BaseModel):
    """What is in the bundle, and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="allow")

    bundle_version: int = 1
    created_at: str
    files: dict[str, FileRecord] = Field(description="Every file of the bundle but this one.")
    teacher: dict[str, Any] = Field(description="Kind of the teacher; artifact and sha256 where it was a file.")
    data: dict[str, dict[str, str]] = Field(description="JSON pointer into the spec -> artifact and sha256.")
    spec: dict[str, Any] = Field(description="The job spec as it was sent.")
    seed: int
    versions: dict[str, str]


class Config(BaseModel):
    """config.json: the complete architecture of the weights."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    architecture: Architecture


class Labels(BaseModel):
    """labels.json: the name of each class, in the order of the outputs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label_names: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one sample. `probabilities` are in the order of the model's `label_names`."""

    label: str
    index: int
    probability: float
    probabilities: tuple[float, ...]


class CompressedModel(nn.Module):
    """A distilled student, ready to answer: `network` with what it needs to know about its inputs and outputs."""

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, label_names: tuple[str, ...], manifest: Manifest
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.label_names = label_names
        self.manifest = manifest

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised float32 inputs (N, *input_shape) -> logits (N, classes)."""
        logits: Tensor = self.network(inputs)
        return logits

    def probabilities(self, raw: RawBatch, *, batch_size: int = 1024) -> Tensor:
        """Raw samples (N, *raw_shape), as the training data had them -> probabilities (N, classes) on the CPU."""
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        arranged = self.preprocessing.arrange(raw)
        with torch.inference_mode():
            parts = torch.split(arranged, batch_size)
            logits = [self(self.preprocessing.normalize(part.to(device))).cpu() for part in parts]
        return torch.cat(logits).float().softmax(dim=1)

    def predict(self, raw: RawBatch, *, batch_size: int = 1024) -> list[Prediction]:
        """An answer for each raw sample of (N, *raw_shape), or for the one sample of shape raw_shape.

        Raises ValueError when the samples are not of the shape or type that the model was trained on.
        """
        if raw.ndim == len(self.preprocessing.raw_shape):
            raw = raw[None]
        rows = self.probabilities(raw, batch_size=batch_size) if len(raw) else torch.empty(0, len(self.label_names))
        return [self._prediction(row) for row in rows]

    def _prediction(self, row: Tensor) -> Prediction:
        index = int(row.argmax())
        values = tuple(row.tolist())
        return Prediction(self.label_names[index], index, values[index], values)


def load(path: str | Path) -> CompressedModel:
    """The compressed model in a bundle, as a torch module on the CPU in eval mode.

    No code of the file is run and nothing is unpacked to disk; every member must have the sha256 of the manifest.
    Raises InvalidBundleError when one has not, LibraryMissingError when the model comes from a library that is not
    installed, and OSError when the file cannot be read.
    """
    manifest, members = read_members(Path(path))
    with _told_as_invalid("the bundle's files do not fit together"):
        preprocessing = Preprocessing.from_json(members[PREPROCESSING])
        labels = Labels.model_validate_json(members[LABELS])
        network = build_network(members[CONFIG], members[WEIGHTS])
        config = Config.model_validate_json(members[CONFIG])
    if config.architecture.num_classes != len(labels.label_names):
        raise InvalidBundleError(
            f"the model has {config.architecture.num_classes} outputs, and labels.json {len(labels.label_names)} names"
        )
    return CompressedModel(network, preprocessing, labels.label_names, manifest).eval()


def build_network(config: bytes, weights: bytes) -> nn.Module:
    """The network of a config.json with the weights of a model.safetensors: on the CPU, float32, in eval mode.

    Raises ValueError, SafetensorError or a StillhouseError when they are malformed or do not belong together.
    """
    architecture = Config.model_validate_json(config).architecture
    if architecture.input_shape is None or architecture.num_classes is None:
        raise ValueError("config.json leaves out input_shape or num_classes")
    tensors = safetensors.torch.load(weights)
    # First without memory, however big a network the file may claim.
    check_weights(outlined(architecture), tensors)
    return build_with(architecture, tensors).eval().requires_grad_(requires_grad=False)


def read_members(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and the content of the members that loading needs; all members are checked against it."""
    with _told_as_invalid("not a readable bundle"), zipfile.ZipFile(path) as archive:
        members = _listed(archive)
        if MANIFEST not in members:
            raise InvalidBundleError(f"{path.name} has no {MANIFEST}: this is not a Stillhouse bundle")
        manifest = _manifest(archive.read(members[MANIFEST]))
        _check_names(set(members) - {MANIFEST}, manifest)
        return manifest, dict(_checked(archive, members, manifest))


def _manifest(text: bytes) -> Manifest:
    manifest = Manifest.model_validate_json(text)
    if manifest.bundle_version != 1:
        raise InvalidBundleError(
            f"the bundle has format {manifest.bundle_version}, and this stillhouse reads format 1; upgrade it"
        )
    return manifest


def _listed(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise InvalidBundleError(f"the bundle has {len(infos)} members; at most {_MAX_MEMBERS} are expected")
    if len({info.filename for info in infos}) != len(infos):
        raise InvalidBundleError("two members of the bundle have the same name")
    for info in infos:
        _check_member(info)
    return {info.filename: info for info in infos}


def _check_member(info: zipfile.ZipInfo) -> None:
    if not _NAME.fullmatch(info.filename):
        raise InvalidBundleError(f"member {info.filename!r}: only plain names without folders are allowed")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise InvalidBundleError(f"member {info.filename!r} is not a plain file")
    if info.filename in _STORED:
        if info.compress_type != zipfile.ZIP_STORED:
            raise InvalidBundleError(f"member {info.filename!r} must be stored without compression")
    elif info.file_size > _MAX_TEXT_BYTES:
        raise InvalidBundleError(f"member {info.filename!r} is larger than {_MAX_TEXT_BYTES} bytes")


def _check_names(names: set[str], manifest: Manifest) -> None:
    if missing := (set(manifest.files) | set(_NEEDED)) - names:
        raise InvalidBundleError(f"the bundle lacks {', '.join(sorted(missing))}")
    if unknown := names - set(manifest.files):
        raise InvalidBundleError(f"{', '.join(sorted(unknown))}: not in the manifest")


def _checked(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], manifest: Manifest
) -> Iterator[tuple[str, bytes]]:
    for name, record in manifest.files.items():
        if members[name].file_size != record.size:
            raise InvalidBundleError(f"{name} has {members[name].file_size} bytes; the manifest says {record.size}")
        digest, content = hashlib.sha256(), bytearray()
        with archive.open(members[name]) as member:
            while chunk := member.read(_CHUNK):
                digest.update(chunk)
                if name in _NEEDED:
                    content += chunk
        if digest.hexdigest() != record.sha256:
            raise InvalidBundleError(f"{name} was changed or damaged: its sha256 is not that of the manifest")
        if name in _NEEDED:
            yield name, bytes(content)


@contextmanager
def _told_as_invalid(what: str) -> Iterator[None]:
    """Whatever zipfile, pydantic, safetensors or torch find wrong with the bytes is one thing to the caller."""
    try:
        yield
    except (InvalidBundleError, LibraryMissingError):
        raise
    # RuntimeError: zipfile for encryption and, as NotImplementedError, for unknown methods.
    except (
        ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, SafetensorError, StillhouseError
    ) as error:
        raise InvalidBundleError(f"{what}: {error}") from error
