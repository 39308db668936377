"""Arrays of labels, as each task wants them. Their values are checked by the task."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import LabelCountMismatchError, UnusableArrayError
from stillhouse.contract.spec.term import TaskKind

Array = npt.NDArray[Any]

TABLE_AXES = 2


def check_labels(labels: Array, num_inputs: int, task: TaskKind, param: str) -> None:
    """Raise UnusableArrayError or LabelCountMismatchError unless type and shape are the task's."""
    wanted = _unlike(labels, task)
    if wanted:
        raise UnusableArrayError(
            f"{wanted}; they are {labels.dtype} of shape {list(labels.shape)}", param=param
        )
    if len(labels) != num_inputs:
        raise LabelCountMismatchError(f"there are {num_inputs:,} inputs and {len(labels):,} labels", param=param)


def label_tensor(labels: Array, task: TaskKind) -> Tensor:
    """Classes (N,) int64, or rows (N, C) float32."""
    if task == "classification":
        return torch.from_numpy(labels.astype(np.int64))
    return torch.from_numpy(labels.astype(np.float32).reshape(len(labels), -1))


def _unlike(labels: Array, task: TaskKind) -> str | None:
    """What the labels should be, where they are not."""
    kind, axes = labels.dtype.kind, labels.ndim
    if task == "classification":
        is_fit = kind in "iu" and axes == 1
        return None if is_fit else (
            "labels must be one integer per input, unless task.kind is multi_label (a row of 0 and 1 per input) or "
            "regression (numbers)"
        )
    if task == "multi_label":
        is_fit = kind in "fiub" and axes == TABLE_AXES and 0 not in labels.shape[1:]
        return None if is_fit else "labels must be a row of 0 and 1 per input, one column for each label"
    is_fit = kind in "fiu" and axes in {1, TABLE_AXES} and 0 not in labels.shape[1:]
    return None if is_fit else "targets must be numbers, one or a row of them per input"
