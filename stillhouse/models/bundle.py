"""The compressed model as a file: read with suspicion, checked against its manifest, given back as a torch module."""

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Self

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from stillhouse.contract.failures import LibraryMissingError, StillhouseError
from stillhouse.contract.spec import Architecture, Classification, Task
from stillhouse.models import answers
from stillhouse.models.answers import Answer
from stillhouse.models.checkpoint import build_with
from stillhouse.models.preprocessing import Preprocessing, RawBatch, RawSample
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
    """config.json: the complete architecture of the weights, and what they are for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    task: Task = Classification()
    architecture: Architecture


class Labels(BaseModel):
    """labels.json: the name of each class, label or target, in the order of the outputs; an embedding has none."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label_names: tuple[str, ...]
    num_outputs: int = Field(ge=1)

    @model_validator(mode="after")
    def _names_all_or_none(self) -> Self:
        if len(self.label_names) not in {0, self.num_outputs}:
            raise ValueError(f"{len(self.label_names)} names for {self.num_outputs} outputs")
        return self


class CompressedModel(nn.Module):
    """A distilled student, ready to answer: `network` with what it needs to know about its inputs and outputs."""

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, labels: Labels, manifest: Manifest,
        task: Task = Classification(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.label_names = labels.label_names
        self.num_outputs = labels.num_outputs
        self.manifest = manifest
        self.task = task

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised float32 inputs (N, *input_shape) -> outputs (N, num_outputs).

        They are logits of a classification or of several labels, values of a regression, or a vector.
        """
        outputs: Tensor = self.network(inputs)
        return outputs

    def outputs(self, raw: RawBatch, *, batch_size: int = 1024) -> Tensor:
        """Raw samples (N, *raw_shape), as the training data had them -> outputs (N, num_outputs) on the CPU."""
        if len(raw) == 0:
            return torch.empty(0, self.num_outputs)
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        arranged = self.preprocessing.arrange(raw)
        with torch.inference_mode():
            parts = torch.split(arranged, batch_size)
            outputs = [self(self.preprocessing.normalize(part.to(device))).cpu() for part in parts]
        return torch.cat(outputs).float()

    def probabilities(self, raw: RawBatch, *, batch_size: int = 1024) -> Tensor:
        """Raw samples (N, *raw_shape) -> probabilities (N, num_outputs) of classes or labels, on the CPU.

        Raises ValueError where the outputs are values.
        """
        return answers.probabilities(self.task, self.outputs(raw, batch_size=batch_size))

    def predict(self, raw: RawBatch | RawSample, *, batch_size: int = 1024) -> list[Answer]:
        """An answer for each raw sample of (N, *raw_shape), or for the one sample of shape raw_shape.

        It is what the task asks for: a `Prediction` of a classification, a `LabelSet`, the `TargetValues` of a
        regression, or a `Vector`. A model of encoded images also takes images of any size (paths, bytes, Pillow's or
        arrays), one or a list of them; one of a table takes rows as mappings from column to value. Raises ValueError
        when the samples are not of the shape or type that the model was trained on.
        """
        batch = self.preprocessing.as_batch(raw)
        return answers.answers(self.task, self.outputs(batch, batch_size=batch_size), self.label_names)


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
    if config.architecture.num_classes != labels.num_outputs:
        raise InvalidBundleError(
            f"the model has {config.architecture.num_classes} outputs, and labels.json tells {labels.num_outputs}"
        )
    if not labels.label_names and config.task.kind != "embedding":
        raise InvalidBundleError(f"labels.json names none of the {config.task.outputs}")
    return CompressedModel(network, preprocessing, labels, manifest, config.task).eval()


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
