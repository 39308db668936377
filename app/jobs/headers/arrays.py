"""Headers of arrays: IDX and NPZ."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from app.artifacts.inspection.facts import ArrayFacts, NpzFacts
from app.jobs.headers.stored import INTEGERS, NUMBERS, Shape, Stored, hint
from stillhouse.contract.failures import (
    EmptyDataError,
    LabelCountMismatchError,
    UnknownArrayError,
    UnusableArrayError,
)
from stillhouse.contract.spec import IdxSplit, LabelKind, NpzSplit, Split

# Number of axes -> axes of an image, by the layout that reads them so.
_IMAGE_AXES: Final = {"hw": 3, "hwc": 4, "chw": 4}
_CHANNEL_COUNTS: Final = (1, 3, 4)
_TABLE_AXES: Final = 2


def shape_of_arrays(
    split: IdxSplit | NpzSplit, kind: LabelKind, pointer: str, stored: Mapping[str, Stored], *, layout: str
) -> Shape:
    """Shape of one input, once inputs, labels and soft labels were found usable."""
    inputs = _array(split, split.inputs, f"{pointer}/inputs", stored)
    _check_inputs(inputs, f"{pointer}/inputs")
    if split.labels is not None:
        labels = _array(split, split.labels, f"{pointer}/labels", stored)
        _check_labels(labels, inputs, kind, f"{pointer}/labels")
    if isinstance(split, NpzSplit):
        for name in split.soft_columns:
            _check_count(_array(split, name, f"{pointer}/soft_labels", stored), inputs, f"{pointer}/soft_labels")
    return _input_shape(inputs.shape[1:], layout, f"{pointer}/inputs")


def label_width(split: Split, stored: Mapping[str, Stored]) -> int | None:
    """Columns of an array of labels; None where the header does not tell."""
    if not isinstance(split, IdxSplit | NpzSplit) or split.labels is None:
        return None
    _, *width = _array(split, split.labels, "", stored).shape
    return width[0] if width else 1


def _array(split: IdxSplit | NpzSplit, name: str, pointer: str, stored: Mapping[str, Stored]) -> ArrayFacts:
    if isinstance(split, IdxSplit):
        return ArrayFacts.model_validate(stored[name].facts)
    arrays = NpzFacts.model_validate(stored[split.artifact].facts).arrays
    if name not in arrays:
        raise UnknownArrayError(f"The NPZ file has no array `{name}`; {hint(name, arrays)}", param=pointer)
    return arrays[name]


def _check_inputs(inputs: ArrayFacts, pointer: str) -> None:
    if inputs.dtype not in NUMBERS:
        raise UnusableArrayError(f"Inputs of type {inputs.dtype} cannot be used; give plain numbers.", param=pointer)
    if not _TABLE_AXES <= len(inputs.shape) <= max(_IMAGE_AXES.values()):
        raise UnusableArrayError(
            f"Inputs have shape {inputs.shape}; a table has 2 axes, images have 3 or 4, samples first.", param=pointer
        )
    if prod(inputs.shape) == 0:
        raise EmptyDataError(f"The array has shape {inputs.shape}: no samples.", param=pointer)


def _check_labels(labels: ArrayFacts, inputs: ArrayFacts, kind: LabelKind, pointer: str) -> None:
    allowed, axes, wanted = _LABEL_ARRAYS[kind]
    if labels.dtype not in allowed or len(labels.shape) not in axes or 0 in labels.shape[1:]:
        raise UnusableArrayError(f"{wanted}, but this array is {labels.dtype} of shape {labels.shape}.", param=pointer)
    if labels.shape[0] != inputs.shape[0]:
        raise LabelCountMismatchError(f"{labels.shape[0]} labels for {inputs.shape[0]} inputs.", param=pointer)


_LABEL_ARRAYS: Mapping[LabelKind, tuple[frozenset[str], tuple[int, ...], str]] = {
    "classes": (
        INTEGERS, (1,),
        (
            "Labels are one integer per sample, unless task.kind is multi_label (a row of 0 and 1 per sample) or "
            "regression (numbers)"
        ),
    ),
    "multi_hot": (NUMBERS, (2,), "Labels are a row of 0 and 1 per sample, one column for each label"),
    "targets": (NUMBERS - {"bool"}, (1, 2), "Targets are numbers, one or a row of them per sample"),
}


def _check_count(array: ArrayFacts, inputs: ArrayFacts, pointer: str) -> None:
    if array.dtype not in NUMBERS or array.shape[:1] != inputs.shape[:1]:
        raise UnusableArrayError(
            f"Soft labels are numbers for each of {inputs.shape[0]} inputs, but this array is {array.dtype} of shape "
            f"{array.shape}.", param=pointer,
        )


def _input_shape(axes: Sequence[int], layout: str, pointer: str) -> Shape:
    """[channels, height, width] of an image, [columns] of a row."""
    if len(axes) == 1:
        return list(axes)
    if layout == "auto":
        layout = "hw" if len(axes) == 2 else "hwc" if axes[-1] in _CHANNEL_COUNTS else "chw"  # noqa: PLR2004 - an image's
    if _IMAGE_AXES[layout] != len(axes) + 1:
        raise UnusableArrayError(
            f"Layout {layout} needs {_IMAGE_AXES[layout]} axes, samples first, but inputs have {len(axes) + 1}.",
            param=pointer,
        )
    if layout == "hw":
        return [1, *axes]
    return [axes[2], axes[0], axes[1]] if layout == "hwc" else list(axes)
