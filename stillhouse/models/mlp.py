"""Multi-layer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from stillhouse.contract.spec import Mlp
from stillhouse.models.activation import ACTIVATIONS


class MlpNetwork(nn.Module):
    """Normalised inputs (N, *input_shape), flattened -> logits (N, num_classes)."""

    def __init__(self, architecture: Mlp, *, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        widths = [prod(input_shape), *architecture.hidden]
        self.body = nn.Sequential(
            *(layer for pair in pairwise(widths) for layer in _hidden(architecture, *pair))
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of inputs (N, *input_shape)."""
        logits: Tensor = self.head(self.body(inputs.flatten(1)))
        return logits


def _hidden(architecture: Mlp, width_in: int, width_out: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Linear(width_in, width_out, bias=not architecture.batch_norm)]
    if architecture.batch_norm:
        layers.append(nn.BatchNorm1d(width_out))
    layers.append(ACTIVATIONS[architecture.activation]())
    if architecture.dropout:
        layers.append(nn.Dropout(architecture.dropout))
    return layers


def describe_mlp(architecture: Mlp, *, input_shape: Sequence[int], num_classes: int) -> str:
    """In short: `mlp 784-64-10`."""
    return "mlp " + "-".join(str(width) for width in (prod(input_shape), *architecture.hidden, num_classes))
