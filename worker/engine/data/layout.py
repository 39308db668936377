"""Which axis of the raw inputs is what."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from stillhouse.contract.failures import UnusableArrayError
from stillhouse.contract.spec import Data, JobSpec
from stillhouse.models.preprocessing import Layout

TaskKind = Literal["image_classification", "tabular_classification"]

# Axes of a whole array, samples first.
COLUMNS_AXES, GREY_AXES, COLOUR_AXES = 2, 3, 4
CHANNEL_COUNTS = (1, 3, 4)


def infer_layout(shape: tuple[int, ...], data: Data, param: str) -> Layout:
    """The layout of an array of inputs (N, ...), as the spec says it or as its axes suggest."""
    axes = len(shape)
    if not COLUMNS_AXES <= axes <= COLOUR_AXES:
        raise UnusableArrayError(
            f"inputs have {axes} axes {list(shape)}; a table has 2, images have 3 or 4, samples first", param=param
        )
    if axes == COLUMNS_AXES:
        return "columns"
    if data.layout == "auto":
        return _guess(shape)
    if (data.layout == "hw") != (axes == GREY_AXES):
        raise UnusableArrayError(f"layout {data.layout} does not fit inputs of shape {list(shape)}", param=param)
    return data.layout


def _guess(shape: tuple[int, ...]) -> Layout:
    if len(shape) == GREY_AXES:
        return "hw"
    return "hwc" if shape[-1] in CHANNEL_COUNTS else "chw"


def input_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The model's input shape for raw inputs (N, ...): (channels, height, width) or (columns,)."""
    if layout == "hw":
        return (1, *shape[1:])
    if layout == "hwc":
        return (shape[3], shape[1], shape[2])
    return tuple(shape[1:])


def infer_task(spec: JobSpec, layout: Layout, param: str) -> TaskKind:
    """The task as given, else by the inputs; raises UnusableArrayError where the two do not go together."""
    found: TaskKind = "tabular_classification" if layout == "columns" else "image_classification"
    if spec.task is not None and spec.task.kind in get_args(TaskKind) and spec.task.kind != found:
        raise UnusableArrayError(f"task is {spec.task.kind}, but the inputs are for {found}", param=param)
    return found


def check_inputs(inputs: npt.NDArray[np.generic], param: str) -> None:
    """Raise UnusableArrayError unless the array holds real numbers."""
    if inputs.dtype.kind not in "fiub":
        raise UnusableArrayError(f"inputs are of type {inputs.dtype}; they must be real numbers", param=param)
    if 0 in inputs.shape[1:]:
        raise UnusableArrayError(f"inputs have an empty axis: {list(inputs.shape)}", param=param)
