"""From an architecture of the spec to a torch module."""

from collections.abc import Sequence

from torch import nn

from stillhouse.contract.spec import Architecture, Mlp
from stillhouse.models.cnn import CnnNetwork, describe_cnn
from stillhouse.models.mlp import MlpNetwork, describe_mlp


def build(architecture: Architecture, *, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """A freshly initialised model: normalised float inputs (N, *input_shape) -> logits (N, num_classes).

    Draws the weights from torch's default generator. Raises InputShapeMismatchError for inputs of the wrong axes.
    """
    if isinstance(architecture, Mlp):
        return MlpNetwork(architecture, input_shape=input_shape, num_classes=num_classes)
    return CnnNetwork(architecture, input_shape=input_shape, num_classes=num_classes)


def describe(architecture: Architecture, input_shape: Sequence[int], num_classes: int) -> str:
    """The architecture in a few characters: `mlp 784-64-10`."""
    if isinstance(architecture, Mlp):
        return describe_mlp(architecture, input_shape=input_shape, num_classes=num_classes)
    return describe_cnn(architecture, input_shape=input_shape, num_classes=num_classes)


def complete(architecture: Architecture, *, input_shape: Sequence[int], num_classes: int) -> Architecture:
    """The architecture with its input shape and number of classes written down."""
    return architecture.model_copy(update={"input_shape": list(input_shape), "num_classes": num_classes})


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
