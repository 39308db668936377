"""Plain convolutional networks."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from stillhouse.contract.failures import InputShapeMismatchError
from stillhouse.contract.spec import Cnn
from stillhouse.models.activation import ACTIVATIONS

IMAGE_AXES = 3


class CnnNetwork(nn.Module):
    """Normalised images (N, channels, height, width) -> logits (N, num_classes)."""

    def __init__(self, architecture: Cnn, *, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        if len(input_shape) != IMAGE_AXES:
            raise InputShapeMismatchError(
                f"a cnn reads images of [channels, height, width]; the inputs are {list(input_shape)}"
            )
        widths = [input_shape[0], *architecture.channels]
        self.body = nn.Sequential(
            *(layer for pair in pairwise(widths) for layer in _stage(architecture, *pair)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *_hidden(architecture, widths[-1]),
        )
        self.head = nn.Linear(architecture.hidden or widths[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, height, width)."""
        logits: Tensor = self.head(self.body(inputs))
        return logits


def _stage(architecture: Cnn, width_in: int, width_out: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for block in range(architecture.blocks_per_stage):
        layers += _block(architecture, width_in if block == 0 else width_out, width_out)
    # Rounding up keeps at least one pixel, however many stages there are.
    return [*layers, nn.MaxPool2d(2, ceil_mode=True)]


def _block(architecture: Cnn, width_in: int, width_out: int) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(width_in, width_out, kernel_size=3, padding=1, bias=not architecture.batch_norm)
    ]
    if architecture.batch_norm:
        layers.append(nn.BatchNorm2d(width_out))
    return [*layers, ACTIVATIONS[architecture.activation]()]


def _hidden(architecture: Cnn, width_in: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    if architecture.hidden:
        layers += [nn.Linear(width_in, architecture.hidden), ACTIVATIONS[architecture.activation]()]
    if architecture.dropout:
        layers.append(nn.Dropout(architecture.dropout))
    return layers


def describe_cnn(architecture: Cnn, *, input_shape: Sequence[int], num_classes: int) -> str:
    """In short: `cnn 1-16-32-10`, and ` x2` behind it for two convolutions in each stage."""
    widths = [input_shape[0], *architecture.channels, *([architecture.hidden] if architecture.hidden else [])]
    repeats = f" x{architecture.blocks_per_stage}" if architecture.blocks_per_stage > 1 else ""
    return "cnn " + "-".join(str(width) for width in (*widths, num_classes)) + repeats
