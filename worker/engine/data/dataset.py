"""The job's data, decoded once: every split as contiguous tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import (
    EmptyDataError,
    NonFiniteInputsError,
    StillhouseError,
    UnusableArrayError,
)
from stillhouse.contract.report import SplitSize
from stillhouse.contract.spec import IdxSplit, JobSpec, Normalization, Split
from stillhouse.contract.spec.term import TaskKind
from stillhouse.models.preprocessing import Layout, Preprocessing
from worker.engine.data.holdout import hold_out
from worker.engine.data.idx import read_idx
from worker.engine.data.labels import check_labels, label_tensor
from worker.engine.data.layout import check_inputs, infer_layout, input_shape
from worker.engine.data.npz import read_npz
from worker.engine.data.statistics import measure_normalization

Array = npt.NDArray[Any]

# Types that torch indexes slowly or not at all, and what holds their values.
_WIDENED = {"uint16": "int32", "uint32": "int64", "uint64": "int64", "bool": "uint8", "float16": "float32"}


@dataclass(frozen=True)
class Samples:
    """What one pair of arrays holds, in the order of the file. A sample's id is its place here."""

    raw: Tensor  # as the data has them
    arranged: Tensor  # (N, *input_shape), the raw type
    labels: Tensor | None  # (N,) int64, or (N, C) float32
    mask: Tensor | None = None  # (N,) bool: which samples have a label; all of them where it is None
    soft_labels: Tensor | None = None  # (N, ...): what the data themselves say softly

    def __len__(self) -> int:
        return len(self.arranged)

    def to(self, device: str) -> "Samples":
        """The same samples, ready for training on the device; the raw ones stay where they are."""
        labels = None if self.labels is None else self.labels.to(device)
        mask = None if self.mask is None else self.mask.to(device)
        return Samples(self.raw, self.arranged.to(device), labels, mask)

    def labelled(self) -> Tensor:
        """Ids of the samples that have a label, ascending."""
        if self.labels is None:
            return torch.arange(0)
        return torch.arange(len(self)) if self.mask is None else self.mask.nonzero().squeeze(1)


@dataclass(frozen=True)
class Part:
    """A split: some of the samples."""

    name: str
    samples: Samples
    ids: Tensor  # int64, ascending
    origin: str

    @property
    def labels(self) -> Tensor | None:
        """Labels of the split, in the order of `ids`."""
        return None if self.samples.labels is None else self.samples.labels[self.ids]

    @property
    def mask(self) -> Tensor | None:
        """Which samples of the split have a label, in the order of `ids`; None where all have, or none has."""
        return None if self.samples.mask is None else self.samples.mask[self.ids]

    def known_labels(self) -> Tensor | None:
        """Labels of those samples of the split that have one, in the order of `ids`; None where none has."""
        labels, mask = self.labels, self.mask
        if labels is None or mask is None:
            return labels
        return labels[mask] if bool(mask.any()) else None

    def size(self) -> SplitSize:
        """The split in the report's words."""
        is_labelled = self.known_labels() is not None
        return SplitSize(
            name=self.name, num_samples=len(self.ids), is_labelled=is_labelled,
            num_labelled=None if self.mask is None else int(self.mask.sum()), origin=self.origin,
        )


@dataclass(frozen=True)
class Dataset:
    """Every split, and what they have in common."""

    train: Part
    validation: Part
    test: Part | None
    preprocessing: Preprocessing

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of a model."""
        return self.preprocessing.input_shape

    @property
    def is_table(self) -> bool:
        """Whether an input is a row of numbers and no image."""
        return self.preprocessing.layout == "columns"

    @property
    def parts(self) -> list[Part]:
        """Training, validation and, where given, test split."""
        return [self.train, self.validation, *([self.test] if self.test else [])]

    def given(self) -> dict[str, Samples]:
        """The samples of each split as the client gave it: a held-out validation split is part of `train`."""
        parts = [part for part in self.parts if part is self.train or part.samples is not self.train.samples]
        return {part.name: part.samples for part in parts}

    @property
    def evaluated(self) -> Part:
        """The split of the headline scores."""
        return self.test or self.validation

    def preprocess_with(self, normalization: Normalization | None) -> Preprocessing:
        """The same preprocessing with another normalisation: a teacher carries its own."""
        if normalization is None:
            return self.preprocessing
        return Preprocessing.model_validate(self.preprocessing.model_dump() | {"normalization": normalization})


def load_dataset(spec: JobSpec, inputs: Mapping[str, Path]) -> Dataset:
    """Decode every split; `inputs` tells each artifact's file. Raises the StillhouseError that fits a defect."""
    arrays = {name: _read(spec, split, inputs, f"/data/{name}") for name, split in spec.splits()}
    first = arrays["train"][0]
    layout = infer_layout(first.shape, spec.data, "/data/train")
    for name, (found, _) in arrays.items():
        _check_alike(found, first, f"/data/{name}")
    shape = input_shape(first.shape, layout)
    samples = {
        name: _samples(*pair, spec.task.kind, layout, shape, f"/data/{name}") for name, pair in arrays.items()
    }
    train, validation = _train_and_validation(spec, samples)
    test = _whole("test", samples["test"]) if "test" in samples else None
    normalization = spec.data.normalization or measure_normalization(train.samples.arranged, train.ids)
    return Dataset(train, validation, test, _preprocessing(shape, layout, first.dtype, normalization))


def _read(spec: JobSpec, split: Split, inputs: Mapping[str, Path], param: str) -> tuple[Array, Array | None]:
    is_labelled = spec.reads_labels_of(split)
    try:
        if isinstance(split, IdxSplit):
            found = read_idx(inputs[split.inputs])
            labels = read_idx(inputs[split.labels]) if split.labels and is_labelled else None
        else:
            found = read_npz(inputs[split.artifact], split.inputs)
            labels = read_npz(inputs[split.artifact], split.labels) if split.labels and is_labelled else None
    except StillhouseError as error:
        error.param = error.param or param
        raise
    check_inputs(found, param)
    if found.ndim == 0 or len(found) == 0:
        raise EmptyDataError(f"{param} has no samples", param=param)
    if labels is not None:
        check_labels(labels, len(found), spec.task.kind, param)
    return found, labels


def _check_alike(found: Array, first: Array, param: str) -> None:
    if found.shape[1:] != first.shape[1:] or found.dtype.kind != first.dtype.kind:
        raise UnusableArrayError(
            f"inputs are {found.dtype} of shape {list(found.shape)}, "
            f"unlike those of the training split: {first.dtype} {list(first.shape)}",
            param=param,
        )


def _samples(
    inputs: Array, labels: Array | None, task: TaskKind, layout: Layout, shape: tuple[int, ...], param: str
) -> Samples:
    raw = torch.from_numpy(inputs.astype(_WIDENED.get(inputs.dtype.name, inputs.dtype), copy=False))
    _check_finite(raw, param)
    arranged = raw.permute(0, 3, 1, 2).contiguous() if layout == "hwc" else raw.view(-1, *shape)
    return Samples(raw, arranged, None if labels is None else label_tensor(labels, task))


def _check_finite(raw: Tensor, param: str) -> None:
    if not raw.is_floating_point():
        return
    finite = raw.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise NonFiniteInputsError(f"input {first} contains NaN or infinite values", param=param)


def _train_and_validation(spec: JobSpec, samples: Mapping[str, Samples]) -> tuple[Part, Part]:
    train = _whole("train", samples["train"])
    if "validation" in samples:
        return train, _whole("validation", samples["validation"])
    held_from, data = train.samples, spec.data
    classes = held_from.labels if spec.task.kind == "classification" else None
    kept, held = hold_out(
        len(held_from), classes, fraction=data.validation_fraction, seed=data.split_seed, mask=held_from.mask
    )
    by_class = " by class" if classes is not None else ""
    origin = f"{data.validation_fraction:.1%} of the given training split, drawn{by_class} with seed {data.split_seed}"
    return (
        Part("train", held_from, kept, "given, less the validation split"),
        Part("validation", held_from, held, origin),
    )


def _whole(name: str, samples: Samples) -> Part:
    return Part(name, samples, torch.arange(len(samples)), "given")


def _preprocessing(
    shape: tuple[int, ...], layout: Layout, dtype: np.dtype[Any], normalization: Normalization
) -> Preprocessing:
    try:
        return Preprocessing(input_shape=shape, layout=layout, dtype=dtype.name, normalization=normalization)
    except ValueError as error:
        raise UnusableArrayError(
            f"the normalization does not fit the inputs: {error}", param="/data/normalization"
        ) from error
