"""What a teacher said of each sample, as columns of the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import UnusableSoftLabelsError
from stillhouse.contract.spec import SoftLabelColumns, SoftTopK, SoftVectors, SoftVotes

Array = npt.NDArray[Any]

MATRIX_AXES = 2


@dataclass(frozen=True)
class SoftLabels:
    """One row per sample of the file. Which are logits and which probabilities is the teacher's to say."""

    kind: Literal["vectors", "top_k", "votes"]
    # vectors: (N, C) float32; top_k: (N, K) float32; votes: (N, R) int64 numbers of classes, -1 where a rater is silent
    values: Tensor
    indices: Tensor | None = None  # top_k: (N, K) int64 numbers of classes, -1 for none
    are_logits: bool = False  # top_k: whether values are logits rather than probabilities

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_classes(self) -> int:
        """Classes of the vectors; of top-k pairs and votes one more than the largest that is named."""
        if self.kind == "vectors":
            return self.values.shape[1]
        return int((self.values if self.indices is None else self.indices).max()) + 1

    def rows(self, ids: Tensor, num_classes: int) -> Tensor:
        """Of samples ids (B,): vectors (B, num_classes) float32, or votes (B, R) int64. Top-k pairs become vectors."""
        values = self.values.index_select(0, ids)
        if self.indices is None:
            return values
        return _dense(values, self.indices.index_select(0, ids), num_classes, are_logits=self.are_logits)


def _dense(values: Tensor, indices: Tensor, num_classes: int, *, are_logits: bool) -> Tensor:
    """Vectors (B, C) of k values (B, K) and their classes: the classes not named share what the k leave."""
    named = indices >= 0
    if are_logits:
        rest = torch.where(named, values, torch.inf).amin(dim=1)
        rest = torch.where(named.any(dim=1), rest, 0.0)
    else:
        left = (1 - torch.where(named, values, 0.0).sum(dim=1)).clamp(min=0)
        rest = left / (num_classes - named.sum(dim=1)).clamp(min=1)
    # Column C takes what stands for no class.
    rows = rest[:, None].repeat(1, num_classes + 1)
    return rows.scatter_(1, torch.where(named, indices, num_classes), values)[:, :num_classes].contiguous()


def read_soft_labels(
    columns: SoftLabelColumns | None, read: Callable[[list[str]], Array], num_samples: int, param: str
) -> SoftLabels | None:
    """Soft labels from columns; `read` gives the array (N, ...) of a list of them. Raises UnusableSoftLabelsError."""
    match columns:
        case None:
            return None
        case SoftVectors():
            return SoftLabels("vectors", _floats(read(columns.values), num_samples, param))
        case SoftVotes():
            return SoftLabels("votes", _numbers(read(columns.votes), num_samples, param))
        case SoftTopK():
            return _top_k(columns, read, num_samples, param)


def _top_k(columns: SoftTopK, read: Callable[[list[str]], Array], num_samples: int, param: str) -> SoftLabels:
    indices, values = read(columns.indices), read(columns.values)
    numbers, floats = _numbers(indices, num_samples, param), _floats(values, num_samples, param)
    if numbers.shape != floats.shape:
        raise UnusableSoftLabelsError(
            f"top-k indices are {list(numbers.shape)} and their values {list(floats.shape)}; give as many of both",
            param=param,
        )
    ordered = numbers.sort(dim=1).values
    repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(dim=1).nonzero()
    if len(repeated):
        raise UnusableSoftLabelsError(f"the top-k indices of sample {int(repeated[0])} repeat a class", param=param)
    return SoftLabels("top_k", floats, numbers, are_logits=columns.gives == "logits")


def _floats(array: Array, num_samples: int, param: str) -> Tensor:
    _check_shape(array, num_samples, param)
    if array.dtype.kind not in "fiub":
        raise UnusableSoftLabelsError(f"soft labels are numbers, and these are {array.dtype}", param=param)
    values = torch.from_numpy(array.astype(np.float32))
    broken = (~values.isfinite()).any(dim=1).nonzero()
    if len(broken):
        raise UnusableSoftLabelsError(f"the soft labels of sample {int(broken[0])} are not finite", param=param)
    return values


def _numbers(array: Array, num_samples: int, param: str) -> Tensor:
    _check_shape(array, num_samples, param)
    whole = array.astype(np.int64) if array.dtype.kind in "fiu" and np.isfinite(array).all() else None
    if whole is None or not np.array_equal(whole, array):
        raise UnusableSoftLabelsError(f"class numbers are whole, and these are {array.dtype}", param=param)
    values = torch.from_numpy(whole)
    below = (values < -1).any(dim=1).nonzero()
    if len(below):
        raise UnusableSoftLabelsError(
            f"a class number of sample {int(below[0])} is below -1; -1 stands for none", param=param
        )
    return values


def _check_shape(array: Array, num_samples: int, param: str) -> None:
    if array.ndim != MATRIX_AXES or len(array) != num_samples or 0 in array.shape:
        raise UnusableSoftLabelsError(
            f"soft labels have one row per sample, so ({num_samples:,}, ...); these are {list(array.shape)}",
            param=param,
        )
