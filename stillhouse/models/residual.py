"""What the residual networks for small images share."""

from collections.abc import Sequence

from torch import nn

from stillhouse.contract.failures import InputShapeMismatchError

IMAGE_AXES = 3


def check_is_image(kind: str, input_shape: Sequence[int]) -> None:
    """Raise InputShapeMismatchError for inputs that are no images."""
    if len(input_shape) != IMAGE_AXES:
        raise InputShapeMismatchError(
            f"a {kind} reads images of [channels, height, width]; the inputs are {list(input_shape)}"
        )


def conv3x3(width_in: int, width_out: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, or halves it at stride 2."""
    return nn.Conv2d(width_in, width_out, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(width_in: int, width_out: int, stride: int) -> nn.Conv2d:
    """A projection for the shortcut around a block that changes width or size."""
    return nn.Conv2d(width_in, width_out, kernel_size=1, stride=stride, bias=False)


def initialize(model: nn.Module) -> None:
    """He's initialisation for the way back, as in the papers."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
