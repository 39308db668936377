"""Weights as safetensors that tell their own architecture and normalisation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from stillhouse.contract.failures import (
    MalformedSafetensorsError,
    NonFiniteWeightsError,
    UnknownArchitectureError,
    WeightsMismatchError,
)
from stillhouse.contract.spec import Architecture, Normalization
from stillhouse.models.registry import build, complete

METADATA_KEY = "stillhouse"
NUM_NAMED = 5  # tensors that a message lists before it says how many more there are

_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was loaded. Its architecture is complete: input shape and number of classes are set."""

    model: nn.Module
    architecture: Architecture
    normalization: Normalization | None

    @property
    def input_shape(self) -> list[int]:
        """Shape of one input."""
        return list(self.architecture.input_shape or ())

    @property
    def num_classes(self) -> int:
        """Width of the output."""
        return self.architecture.num_classes or 0


def save_checkpoint(
    path: Path, model: nn.Module, architecture: Architecture, normalization: Normalization | None
) -> None:
    """Write weights and buffers; `architecture` must be complete (see `complete`)."""
    about = {
        "architecture": architecture.model_dump(mode="json"),
        "normalization": normalization.model_dump(mode="json") if normalization else None,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(about)})


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

    A given `architecture` wins over the file's own; `input_shape` and `num_classes` fill in what it leaves open.
    Raises MalformedSafetensorsError, UnknownArchitectureError, WeightsMismatchError or NonFiniteWeightsError.
    """
    stored, about = _read(path)
    tensors = _as_float32(stored)
    architecture = architecture or _architecture(about)
    shape = architecture.input_shape or input_shape
    if shape is None:
        raise UnknownArchitectureError("the checkpoint does not tell its input shape; give architecture.input_shape")
    width = architecture.num_classes or num_classes or _output_width(tensors)
    # Built without memory: hostile widths cost nothing until the shapes are known to match real tensors.
    with torch.device("meta"):
        model = build(architecture, input_shape=shape, num_classes=width)
    check_weights(model, tensors)
    model.load_state_dict(tensors, assign=True)
    return Checkpoint(
        model.eval(), complete(architecture, input_shape=shape, num_classes=width), _normalization(about)
    )


def check_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsMismatchError or NonFiniteWeightsError, naming the tensors, unless they are the model's."""
    expected = model.state_dict()
    problems = [
        *_listed("missing", [name for name in expected if name not in tensors]),
        *_listed("not in the architecture", [name for name in tensors if name not in expected]),
        *_listed("of another shape", [
            f"{name} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in expected.items() if name in tensors and tensors[name].shape != tensor.shape
        ]),
    ]
    if problems:
        raise WeightsMismatchError("the weights do not belong to the named architecture: " + "; ".join(problems))
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise NonFiniteWeightsError("; ".join(_listed("weights that are NaN or infinite", broken)))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise MalformedSafetensorsError(f"the file is not valid safetensors: {error}") from error
    return tensors, _about(metadata.get(METADATA_KEY))


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


def _output_width(tensors: Mapping[str, Tensor]) -> int:
    head = tensors.get("head.weight")  # every family names its last layer so
    if head is None or head.ndim == 0 or head.shape[0] == 0:
        raise WeightsMismatchError("the weights have no tensor head.weight, the last layer of every built-in family")
    return head.shape[0]


def _as_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return [f"{what}: {', '.join(names[:NUM_NAMED])}{more}"]
