"""From labels as the data have them to what a task learns from, alike in every split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import (
    LabelOutOfRangeError,
    OutputWidthMismatchError,
    UnknownLabelError,
    UnusableArrayError,
    UnusableLabelsError,
)
from stillhouse.contract.spec import Data, LabelKind
from worker.engine.data.nearest import hint
from worker.engine.data.raw import RawLabels, RawSplit

Array = npt.NDArray[Any]

# So many different texts are classes, however few samples there are.
FEW_NAMES = 1000


@dataclass(frozen=True)
class Labels:
    """Labels of one split. N samples; where `mask` is False the label counts for nothing, and is 0."""

    values: Tensor  # classes: (N,) int64; multi_hot: (N, L) float32 of 0 and 1; targets: (N, D) float32
    mask: Tensor | None  # (N,) bool; every sample is labelled where it is None


def encode_labels(
    raws: Mapping[str, RawSplit], data: Data, kind: LabelKind
) -> tuple[dict[str, Labels | None], list[str] | None]:
    """Labels of each split, the training split first, and the names of the outputs where spec or data tell them.

    Raises UnusableLabelsError, UnknownLabelError or UnusableArrayError.
    """
    names = list(data.label_names or ()) or _names(raws)
    encoder = _Encoder(data, kind, names)
    labels = {name: encoder.encode(raw.labels, f"/data/{name}") for name, raw in raws.items()}
    return labels, names or None


def _names(raws: Mapping[str, RawSplit]) -> list[str]:
    """Names of the outputs as the training split has them."""
    train = raws["train"]
    if train.label_names is not None:
        return list(train.label_names)
    if train.labels is None or train.labels.names is None:
        return []
    used = train.labels.values
    if train.labels.known is not None and train.labels.offsets is None:
        used = used[train.labels.known]
    names = sorted(train.labels.names[place] for place in np.unique(used))
    if len(names) > max(FEW_NAMES, len(train.labels) // 2):
        raise UnusableLabelsError(
            f"the label column has {len(names):,} different texts for {len(train.labels):,} samples, so it is no "
            "label; name another column", param="/data/train/labels",
        )
    return names


class _Encoder:
    """Encodes the labels of every split alike."""

    def __init__(self, data: Data, kind: LabelKind, names: list[str]) -> None:
        self._missing = data.missing_label
        self._num_classes = data.given_num_classes or len(names) or None
        self._kind = kind
        self._names = names
        self._width: int | None = None  # of several labels or targets, once a split has shown it

    def encode(self, raw: RawLabels | None, param: str) -> Labels | None:
        if raw is None:
            return None
        known = np.ones(len(raw), bool) if raw.known is None else raw.known.copy()
        values = self._named(raw, known, param)
        known = self._drop_missing(values, raw, known)
        match self._kind:
            case "classes":
                encoded = _classes(values, raw, known, param)
            case "multi_hot":
                encoded = self._multi_hot(values, raw, known, param)
            case "targets":
                encoded = _targets(values, raw, known, param)
        if encoded.ndim > 1:
            self._check_width(encoded, param)
        if not known.any():
            raise UnusableLabelsError("no sample has a label; leave labels out for unlabelled data", param=param)
        encoded[~known] = 0
        return Labels(torch.from_numpy(encoded), None if known.all() else torch.from_numpy(known))

    def _named(self, raw: RawLabels, known: npt.NDArray[np.bool_], param: str) -> Array:
        """The values, with places of names turned into those of the outputs."""
        if raw.names is None:
            return raw.values
        places = {name: place for place, name in enumerate(self._names)}
        mapped = np.array([places.get(name, -1) for name in raw.names] or [-1], np.int64)[raw.values]
        used = mapped >= 0
        if raw.offsets is None:
            used |= ~known
        if not used.all():
            item = int(used.argmin())
            sample = item if raw.offsets is None else int(np.searchsorted(raw.offsets, item, side="right")) - 1
            name = raw.names[raw.values[item]]
            raise UnknownLabelError(
                f"the label `{name[:100]}` of sample {sample:,} is no class; {hint(name, self._names)}", param=param
            )
        return mapped

    def _drop_missing(
        self, values: Array, raw: RawLabels, known: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Which samples have a label, once the integer that stands for none is known."""
        if self._missing is None or raw.names is not None or raw.offsets is not None:
            return known
        is_missing = values == self._missing
        kept: npt.NDArray[np.bool_] = known & ~(is_missing if values.ndim == 1 else is_missing.all(axis=1))
        return kept

    def _multi_hot(self, values: Array, raw: RawLabels, known: npt.NDArray[np.bool_], param: str) -> Array:
        if raw.offsets is not None:
            return self._from_sets(values, raw.offsets, param)
        if values.ndim == 1:
            raise UnusableLabelsError(
                "a multi_label task takes a 0 or 1 for each label (several columns, or an array of two axes) or a list "
                "of the labels that apply; this is one value per sample", param=param,
            )
        odd = np.argwhere(~np.isin(values, (0, 1)) & known[:, None])
        if len(odd):
            sample, column = odd[0]
            raise LabelOutOfRangeError(
                f"label {values[sample, column]:g} of sample {sample} in column {column} is neither 0 nor 1",
                param=param,
            )
        return values.astype(np.float32)

    def _from_sets(self, values: Array, offsets: npt.NDArray[np.int64], param: str) -> Array:
        width = self._num_classes or self._width or (int(values.max()) + 1 if len(values) else 1)
        samples = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        outside = ((values < 0) | (values >= width)).nonzero()[0]
        if len(outside):
            raise UnusableLabelsError(
                f"label {values[outside[0]]} of sample {samples[outside[0]]:,} is not one of {width}, which are "
                f"numbered 0 to {width - 1}", param=param,
            )
        rows = np.zeros((len(offsets) - 1, width), np.float32)
        rows[samples, values] = 1
        return rows

    def _check_width(self, rows: Array, param: str) -> None:
        self._width = self._width or rows.shape[1]
        if rows.shape[1] != self._width:
            raise OutputWidthMismatchError(
                f"the labels have {rows.shape[1]} columns, and those of the training split {self._width}", param=param
            )
        if self._names and len(self._names) != self._width:
            raise OutputWidthMismatchError(
                f"the labels have {self._width} columns, and label_names has {len(self._names)} names", param=param
            )


def _classes(values: Array, raw: RawLabels, known: npt.NDArray[np.bool_], param: str) -> Array:
    if values.ndim > 1 or raw.offsets is not None:
        raise UnusableArrayError(
            f"labels must be one integer per input; they are {values.dtype} of shape {list(values.shape)}. For others "
            "set task.kind to multi_label, regression or embedding", param=param,
        )
    numbers = values.astype(np.int64)
    odd = ((numbers != values) & known).nonzero()[0]
    if len(odd):
        raise UnusableLabelsError(
            f"label {values[odd[0]]} of sample {int(odd[0]):,} is no whole number, so the labels are no classes; for "
            "numbers to be met set task.kind to regression", param=param,
        )
    return numbers


def _targets(values: Array, raw: RawLabels, known: npt.NDArray[np.bool_], param: str) -> Array:
    if raw.names is not None or raw.offsets is not None:
        raise UnusableLabelsError("a regression or an embedding is learned from numbers, one row of one length per "
                                  "sample; the labels are texts or lists of any length", param=param)
    rows = values.astype(np.float32).reshape(len(values), -1)
    odd = np.argwhere(~np.isfinite(rows) & known[:, None])
    if len(odd):
        sample, column = odd[0]
        raise UnusableLabelsError(
            f"target {values.reshape(rows.shape)[sample, column]:g} of sample {sample} in column {column} is no finite "
            "number, or too large for 32 bits", param=param,
        )
    return rows
