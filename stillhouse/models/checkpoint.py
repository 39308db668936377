"""Checkpoints: safetensors that tell their own architecture and normalisation, and weights as PyTorch saves them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from stillhouse.contract.failures import (
    MalformedSafetensorsError,
    UnbuildableModelError,
    UnknownArchitectureError,
    WeightsMismatchError,
)
from stillhouse.contract.spec import Architecture, Normalization, named_base
from stillhouse.models.pytorch_file import is_pytorch, read_pytorch
from stillhouse.models.registry import build_complete, complete, outlined
from stillhouse.models.weights import Tensors, check_names_and_shapes, check_weights, recognize

METADATA_KEY = "stillhouse"

_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was loaded. Its architecture is complete: input shape and number of classes are set.

    The remarks tell what had to be recognised in the file.
    """

    model: nn.Module
    architecture: Architecture
    normalization: Normalization | None
    remarks: list[str] = field(default_factory=list)

    @property
    def input_shape(self) -> list[int]:
        """Shape of one input."""
        return list(self.architecture.input_shape or ())

    @property
    def num_classes(self) -> int:
        """Width of the output."""
        return self.architecture.num_classes or 0


@dataclass(frozen=True)
class LoadedWeights:
    """Weights for a model of a known architecture, float32, under its names. The remarks tell what was recognised."""

    tensors: dict[str, Tensor]
    remarks: list[str]


def save_checkpoint(
    path: Path, model: nn.Module, architecture: Architecture, normalization: Normalization | None
) -> None:
    """Write weights and buffers; `architecture` must be complete (see `complete`)."""
    about = {
        "architecture": architecture.model_dump(mode="json"),
        "normalization": normalization.model_dump(mode="json") if normalization else None,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(_unshared(tensors), path, metadata={METADATA_KEY: json.dumps(about)})


def saved_bytes(model: nn.Module) -> int:
    """Size of the model's weights and buffers as safetensors, without metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return len(save(tensors))


def load_checkpoint(
    path: Path,
    architecture: Architecture | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> Checkpoint:
    """The model that the file holds, in evaluation mode, as float32.

    The file is safetensors or a zip of torch.save. A given `architecture` wins over the file's own; `input_shape` and
    `num_classes` fill in what it leaves open. Raises MalformedSafetensorsError, MalformedPytorchError,
    UnknownArchitectureError, WeightsMismatchError, NonFiniteWeightsError, or what building the model raises.
    """
    stored, about, remarks = _read(path)
    architecture = architecture or _architecture(about)
    shape = architecture.input_shape or input_shape
    if shape is None:
        raise UnknownArchitectureError("the checkpoint does not tell its input shape; give architecture.input_shape")
    width = architecture.num_classes or num_classes or _output_width(architecture, shape, stored)
    complete_one = complete(architecture, input_shape=shape, num_classes=width)
    tensors, more = _fitted(complete_one, stored)
    model = build_with(complete_one, tensors)
    return Checkpoint(model.eval(), complete_one, _normalization(about), [*remarks, *more])


def load_weights(path: Path, architecture: Architecture) -> LoadedWeights:
    """Weights of a file for a model of this complete architecture, whatever the file says of its own.

    Raises MalformedSafetensorsError, MalformedPytorchError, WeightsMismatchError or NonFiniteWeightsError.
    """
    stored, _, remarks = _read(path)
    tensors, more = _fitted(architecture, stored)
    return LoadedWeights(tensors, [*remarks, *more])


def build_with(architecture: Architecture, tensors: Tensors) -> nn.Module:
    """A model of a complete architecture with these weights, which were checked to be its own.

    Built for real, not on the meta device, since some models hold more than parameters. Moves no generator.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_complete(architecture)
    model.load_state_dict(tensors)
    return model


def _fitted(architecture: Architecture, stored: Tensors) -> tuple[dict[str, Tensor], list[str]]:
    # First without memory: hostile widths cost nothing until names and shapes are known to match real tensors.
    model = outlined(architecture)
    found = recognize(model, stored)
    check_names_and_shapes(model, found.tensors)  # before a byte of them is read or copied
    tensors = _as_float32(found.tensors)
    check_weights(model, tensors)
    return tensors, found.remarks


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    if is_pytorch(path):
        tensors, remarks = read_pytorch(path)
        return tensors, {}, remarks
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise MalformedSafetensorsError(f"the file is not valid safetensors: {error}") from error
    return tensors, _about(metadata.get(METADATA_KEY)), []


def _about(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedSafetensorsError("the metadata under the key `stillhouse` is not JSON") from error
    return about if isinstance(about, dict) else {}


def _architecture(about: Mapping[str, Any]) -> Architecture:
    try:
        return _ARCHITECTURE.validate_python(about["architecture"])
    except KeyError as error:
        raise UnknownArchitectureError from error
    except ValidationError as error:
        raise UnknownArchitectureError(f"the checkpoint names an architecture that is not known: {error}") from error


def _normalization(about: Mapping[str, Any]) -> Normalization | None:
    if about.get("normalization") is None:
        return None
    try:
        return Normalization.model_validate(about["normalization"])
    except ValidationError as error:
        raise MalformedSafetensorsError(f"the checkpoint's normalization is not valid: {error}") from error


def _output_width(architecture: Architecture, shape: Sequence[int], stored: Tensors) -> int:
    """As many outputs as the tensors have that would change with the number of classes."""
    base = complete(named_base(architecture), input_shape=shape, num_classes=2)
    names = output_tensors(base)
    found = recognize(outlined(base), stored).tensors
    widths = {found[name].shape[0] for name in names if name in found and found[name].ndim}
    if len(widths) != 1 or 0 in widths:
        raise WeightsMismatchError(
            f"the weights have no tensor {' or '.join(names)} that tells the number of outputs; give num_classes"
        )
    return widths.pop()


def output_tensors(architecture: Architecture) -> list[str]:
    """Names of the tensors of a complete architecture whose first axis is as long as there are classes."""
    base = named_base(architecture)
    shape = base.input_shape or ()
    two, three = (
        outlined(complete(base, input_shape=shape, num_classes=count)).state_dict() for count in (2, 3)
    )
    names = [name for name, tensor in two.items() if tensor.ndim and tensor.shape[:1] != three[name].shape[:1]]
    if not names:
        raise UnbuildableModelError("the model has no layer whose width is the number of classes")
    return names


def _as_float32(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _unshared(tensors: Tensors) -> dict[str, Tensor]:
    """Copies of those that share memory with another, which safetensors does not write."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return separate
