"""From an architecture of the spec to a torch module."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from stillhouse.contract.spec import Architecture, Narrowed, Shortened
from stillhouse.models.cnn import CnnNetwork, describe_cnn
from stillhouse.models.libraries import build_timm, build_torchvision, build_transformers, describe_library
from stillhouse.models.mlp import MlpNetwork, describe_mlp
from stillhouse.models.narrowed import narrow
from stillhouse.models.outline import outline
from stillhouse.models.resnet import ResnetNetwork, describe_resnet
from stillhouse.models.shortened import shorten
from stillhouse.models.wrn import WrnNetwork, describe_wrn


class Kind(NamedTuple):
    """How the models of a kind are made and told. Both take the architecture, `input_shape` and `num_classes`."""

    build: Callable[..., nn.Module]
    describe: Callable[..., str]


KINDS: Mapping[str, Kind] = {
    "mlp": Kind(MlpNetwork, describe_mlp),
    "cnn": Kind(CnnNetwork, describe_cnn),
    "resnet": Kind(ResnetNetwork, describe_resnet),
    "wrn": Kind(WrnNetwork, describe_wrn),
    "timm": Kind(build_timm, describe_library),
    "torchvision": Kind(build_torchvision, describe_library),
    "transformers": Kind(build_transformers, describe_library),
}


def build(architecture: Architecture, *, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """A freshly initialised model: normalised float inputs (N, *input_shape) -> logits (N, num_classes).

    Draws the weights from torch's default generator. Raises InputShapeMismatchError for inputs of the wrong axes, and
    for models of libraries UnknownModelError, UnbuildableModelError or LibraryMissingError.
    """
    if isinstance(architecture, Shortened):
        base = build(architecture.base, input_shape=input_shape, num_classes=num_classes)
        return shorten(base, architecture.keep)
    if isinstance(architecture, Narrowed):
        base = build(architecture.base, input_shape=input_shape, num_classes=num_classes)
        return narrow(base, architecture.widths)
    return KINDS[architecture.kind].build(architecture, input_shape=input_shape, num_classes=num_classes)


def build_complete(architecture: Architecture) -> nn.Module:
    """As `build`, of a complete architecture (see `complete`)."""
    return build(
        architecture, input_shape=architecture.input_shape or (), num_classes=architecture.num_classes or 0
    )


def outlined(architecture: Architecture) -> nn.Module:
    """A complete architecture on the meta device: takes no memory and no random numbers, however big it says it is."""
    return outline(lambda: build_complete(architecture))


def describe(architecture: Architecture, input_shape: Sequence[int], num_classes: int) -> str:
    """The architecture in a few characters: `mlp 784-64-10`."""
    if isinstance(architecture, Shortened):
        kept = ", ".join(f"{path} {'+'.join(map(str, indices))}" for path, indices in architecture.keep.items())
        return f"{describe(architecture.base, input_shape, num_classes)}, only {kept}"
    if isinstance(architecture, Narrowed):
        return f"{describe(architecture.base, input_shape, num_classes)}, pruned"
    return KINDS[architecture.kind].describe(architecture, input_shape=input_shape, num_classes=num_classes)


def complete(architecture: Architecture, *, input_shape: Sequence[int], num_classes: int) -> Architecture:
    """The architecture with its input shape and number of classes written down."""
    if isinstance(architecture, Shortened | Narrowed):
        base = complete(architecture.base, input_shape=input_shape, num_classes=num_classes)
        return architecture.model_copy(update={"base": base})
    return architecture.model_copy(update={"input_shape": list(input_shape), "num_classes": num_classes})


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())

