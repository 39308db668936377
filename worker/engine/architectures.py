"""An architecture of the spec, fitted to the data."""

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from stillhouse.contract.failures import InputShapeMismatchError, InvalidSpecError, OutputWidthMismatchError
from stillhouse.contract.spec import Architecture, Cnn, Mlp, Training
from stillhouse.models import build, complete

IMAGE_AXES = 3


def fit(
    architecture: Architecture, *, input_shape: Sequence[int], num_classes: int, param: str, outputs: str = "classes"
) -> Architecture:
    """The architecture with the data's input shape and width. Raises what fits when it says otherwise itself.

    `outputs` is what they stand for, for messages.
    """
    check_width(architecture.num_classes, num_classes, f"{param}/num_classes", outputs=outputs)
    check_input_shape(architecture, input_shape, f"{param}/input_shape")
    return complete(architecture, input_shape=input_shape, num_classes=num_classes)


def check_width(width: int | None, num_classes: int, param: str, *, outputs: str = "classes") -> None:
    """Raise OutputWidthMismatchError when a model's outputs are not as many as they should be."""
    if width not in {None, num_classes}:
        raise OutputWidthMismatchError(
            f"the model has {width} outputs, and the data have {num_classes} {outputs}", param=param
        )


def check_input_shape(architecture: Architecture, input_shape: Sequence[int], param: str) -> None:
    """Raise InputShapeMismatchError when the model cannot read the data. An mlp flattens, so it reads what fits."""
    own = architecture.input_shape
    fits = own is None or list(own) == list(input_shape) or (
        isinstance(architecture, Mlp) and prod(own) == prod(input_shape)
    )
    if not fits:
        raise InputShapeMismatchError(
            f"the model's inputs are {own}, and those of the data are {list(input_shape)}", param=param
        )
    if isinstance(architecture, Cnn) and len(input_shape) != IMAGE_AXES:
        raise InputShapeMismatchError(
            f"a cnn reads images, and the inputs are {list(input_shape)}; choose an mlp", param=param
        )


def check_batch(architecture: Architecture, training: Training, num_samples: int, param: str) -> None:
    """Raise InvalidSpecError for batch normalisation over batches of one, which have no spread to measure."""
    if architecture.batch_norm and min(training.batch_size, num_samples) == 1:
        raise InvalidSpecError(
            "batch normalisation needs at least 2 samples per step", param=f"{param}/batch_size"
        )


def build_fitted(architecture: Architecture, device: str) -> nn.Module:
    """A new model of a complete architecture, on the device."""
    model = build(
        architecture, input_shape=architecture.input_shape or (), num_classes=architecture.num_classes or 0
    )
    return place(model, device)


def place(model: nn.Module, device: str) -> nn.Module:
    """The model on the device, with convolutions in the memory format that is faster on every device we know."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
