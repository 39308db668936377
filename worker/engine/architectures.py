"""An architecture of the spec, fitted to the data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillhouse.contract.failures import (
    InputShapeMismatchError,
    InvalidSpecError,
    OutputWidthMismatchError,
    StillhouseError,
)
from stillhouse.contract.spec import Architecture, Mlp, Training, named_base
from stillhouse.models import build_complete, complete, outlined
from worker.engine.flops import count_flops

IMAGE_AXES = 3


def fit(
    architecture: Architecture, *, input_shape: Sequence[int], num_classes: int, param: str, outputs: str = "classes"
) -> Architecture:
    """The architecture with the data's input shape and width, found to answer such inputs.

    `outputs` is what they stand for, for messages. Raises what fits when it says otherwise itself, cannot be built, or
    does not answer.
    """
    check_width(architecture.num_classes, num_classes, f"{param}/num_classes", outputs=outputs)
    check_input_shape(architecture, input_shape, f"{param}/input_shape")
    fitted = complete(architecture, input_shape=input_shape, num_classes=num_classes)
    check_answers(fitted, param)
    return fitted


def check_answers(architecture: Architecture, param: str) -> None:
    """Raise what fits unless a complete architecture can be built, and answers its inputs with logits."""
    with blaming(param):
        count_flops(architecture)


@contextmanager
def blaming(param: str) -> Iterator[None]:
    """Within, a failure that names no field of the spec gets this one."""
    try:
        yield
    except StillhouseError as error:
        error.param = error.param or param
        raise


def check_width(width: int | None, num_classes: int, param: str, *, outputs: str = "classes") -> None:
    """Raise OutputWidthMismatchError when a model's outputs are not as many as they should be."""
    if width not in {None, num_classes}:
        raise OutputWidthMismatchError(
            f"the model has {width} outputs, and the data have {num_classes} {outputs}", param=param
        )


def check_input_shape(architecture: Architecture, input_shape: Sequence[int], param: str) -> None:
    """Raise InputShapeMismatchError when the model cannot read the data. An mlp flattens, so it reads what fits."""
    own = architecture.input_shape
    flattens = isinstance(named_base(architecture), Mlp)
    fits = own is None or list(own) == list(input_shape) or (flattens and prod(own) == prod(input_shape))
    if not fits:
        raise InputShapeMismatchError(
            f"the model's inputs are {own}, and those of the data are {list(input_shape)}", param=param
        )
    if not flattens and len(input_shape) != IMAGE_AXES:
        raise InputShapeMismatchError(
            f"a {named_base(architecture).kind} reads images, and the inputs are {list(input_shape)}; choose an mlp",
            param=param,
        )


def check_batch(
    architecture: Architecture, training: Training, num_samples: int, param: str, num_ranks: int = 1
) -> None:
    """Raise InvalidSpecError for batch normalisation over batches of one, which have no spread to measure.

    `architecture` is complete; `num_ranks` processes share each batch.
    """
    if min(training.batch_size, num_samples) > num_ranks:
        return
    model = outlined(architecture)
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise InvalidSpecError(
            f"batch normalisation needs at least 2 samples per step{' on each device' if num_ranks > 1 else ''}",
            param=f"{param}/batch_size",
        )


def build_fitted(architecture: Architecture, device: str) -> nn.Module:
    """A new model of a complete architecture, on the device."""
    return place(build_complete(architecture), device)


def place(model: nn.Module, device: str) -> nn.Module:
    """The model on the device, with convolutions in the memory format that is faster on every device we know."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
