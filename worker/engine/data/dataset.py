"""The job's data, decoded once: every split as contiguous tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import NonFiniteInputsError, UnusableArrayError
from stillhouse.contract.report import SplitSize
from stillhouse.contract.spec import ImageFit, JobSpec, LabelKind, Normalization, label_kind
from stillhouse.models.preprocessing import Layout, Preprocessing
from stillhouse.models.table import Table
from worker.engine.data.holdout import hold_out
from worker.engine.data.labels import Labels, encode_labels
from worker.engine.data.layout import infer_layout, input_shape
from worker.engine.data.raw import RawSplit
from worker.engine.data.readers import Reader
from worker.engine.data.room import Room, chunks, is_mapped
from worker.engine.data.soft_labels import SoftLabels
from worker.engine.data.source import MappedSource, MemorySource, Source
from worker.engine.data.statistics import measure_normalization

Array = npt.NDArray[Any]

# Types that torch indexes slowly or not at all, and what holds their values.
_WIDENED = {"uint16": "int32", "uint32": "int64", "uint64": "int64", "bool": "uint8", "float16": "float32"}


@dataclass(frozen=True)
class Samples:
    """What one split of the spec holds, in the order of its file. A sample's id is its place here."""

    raw: Tensor  # as the data has them: a view of `arranged`
    arranged: Tensor  # (N, *input_shape), the raw type; a file that is mapped into memory where `is_mapped`
    # (N,) int64 classes; (N, L) float32 of 0 and 1; (N, D) float32 targets. 0 where `mask` is False.
    labels: Tensor | None
    mask: Tensor | None = None  # (N,) bool: which samples have a label; all of them where it is None
    soft_labels: SoftLabels | None = None
    is_mapped: bool = False

    def __len__(self) -> int:
        return len(self.arranged)

    def labelled(self) -> Tensor:
        """Ids of the samples that have a label, ascending."""
        if self.labels is None:
            return torch.arange(0)
        return torch.arange(len(self)) if self.mask is None else self.mask.nonzero().squeeze(1)

    def said_softly(self, ids: Tensor, num_outputs: int) -> Tensor | None:
        """Soft labels of samples (B,) that the data bring themselves; None where they bring none."""
        return None if self.soft_labels is None else self.soft_labels.rows(ids.cpu(), num_outputs)

    def to(self, device: str) -> "Samples":
        """The same samples, ready for training on the device; raw ones and what is on disk stay where they are."""
        return replace(
            self,
            arranged=self.arranged if self.is_mapped else self.arranged.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            mask=None if self.mask is None else self.mask.to(device),
        )

    def source(self, device: str) -> Source:
        """The arranged samples by their ids, on the device."""
        if self.is_mapped:
            return MappedSource(self.arranged, device)
        return MemorySource(self.arranged.to(device))


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
        """Which samples of the split have a label, in the order of `ids`; all of them where it is None."""
        return None if self.samples.mask is None else self.samples.mask[self.ids]

    def known_labels(self) -> Tensor | None:
        """Labels of those samples of the split that have one, in the order of `ids`; None where none has."""
        labels, mask = self.labels, self.mask
        if labels is None or mask is None:
            return labels
        return labels[mask] if bool(mask.any()) else None

    @property
    def classes(self) -> Tensor | None:
        """Class of each sample of the split, -1 where it has no label; None where there is no single one."""
        labels, mask = self.labels, self.mask
        if labels is None or labels.ndim > 1:
            return None
        return labels if mask is None else torch.where(mask, labels, -1)

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
    label_kind: LabelKind = "classes"
    label_names: list[str] | None = None  # of the outputs, where the spec or the data tell them

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


def load_dataset(
    spec: JobSpec, inputs: Mapping[str, Path], scratch: Path | None = None, *, budget: int | None = None
) -> Dataset:
    """Decode every split; `inputs` tells each artifact's file. Raises the StillhouseError that fits a defect.

    What takes more than `budget` bytes (half of the available memory when left out) is decoded into files below
    `scratch`; without such a folder it is refused.
    """
    room = Room(scratch, budget)
    reader = Reader(spec, inputs, room)
    raws = {name: reader.read(name, split) for name, split in spec.splits()}
    layout = _layout(raws["train"], spec)
    for name, raw in raws.items():
        _check_alike(raw, raws["train"], f"/data/{name}")
    shape = _input_shape(raws["train"], layout)
    about = _About(raws["train"].dtype, raws["train"].image, raws["train"].table)
    kind = label_kind(spec.task.kind)
    labels, names = encode_labels(raws, spec.data, kind)
    samples = {
        name: _samples(raws.pop(name), labels[name], layout, shape, room, f"/data/{name}") for name in list(raws)
    }
    train, validation = _train_and_validation(spec, samples, kind)
    test = _whole("test", samples["test"]) if "test" in samples else None
    is_number = about.table.is_number if about.table else None
    normalization = spec.data.normalization or measure_normalization(
        train.samples.arranged, train.ids, is_number=is_number
    )
    preprocessing = _preprocessing(shape, layout, about, normalization)
    return Dataset(train, validation, test, preprocessing, kind, names)


class _About(NamedTuple):
    """What is kept of the raw training split: its arrays go as soon as they are arranged."""

    dtype: str
    image: ImageFit | None
    table: Table | None


def _layout(raw: RawSplit, spec: JobSpec) -> Layout:
    if raw.image is not None:
        return "hw" if raw.image.channels == 1 else "hwc"
    return infer_layout(raw.inputs.shape, spec.data, "/data/train")


def _input_shape(raw: RawSplit, layout: Layout) -> tuple[int, ...]:
    return raw.inputs.shape[1:] if raw.image else input_shape(raw.inputs.shape, layout)


def _check_alike(found: RawSplit, first: RawSplit, param: str) -> None:
    one, other = found.inputs, first.inputs
    if one.shape[1:] != other.shape[1:] or one.dtype.kind != other.dtype.kind:
        raise UnusableArrayError(
            f"inputs are {one.dtype} of shape {list(one.shape)}, "
            f"unlike those of the training split: {other.dtype} {list(other.shape)}",
            param=param,
        )


def _samples(
    raw: RawSplit, labels: Labels | None, layout: Layout, shape: tuple[int, ...], room: Room, param: str
) -> Samples:
    values = room.converted(raw.inputs, _WIDENED.get(raw.inputs.dtype.name, raw.inputs.dtype))
    _check_finite(values, param)
    arranged = room.channels_first(values) if layout == "hwc" and raw.image is None else values.reshape(-1, *shape)
    tensor = torch.from_numpy(arranged)
    return Samples(
        _as_given(tensor, layout), tensor,
        labels=labels.values if labels else None, mask=labels.mask if labels else None,
        soft_labels=raw.soft_labels, is_mapped=is_mapped(arranged),
    )


def _as_given(arranged: Tensor, layout: Layout) -> Tensor:
    """The samples with their axes as the data have them, without a copy."""
    if layout == "hwc":
        return arranged.permute(0, 2, 3, 1)
    return arranged.squeeze(1) if layout == "hw" else arranged


def _check_finite(values: Array, param: str) -> None:
    if values.dtype.kind != "f":
        return
    for rows in chunks(values):
        finite = np.isfinite(values[rows]).reshape(len(values[rows]), -1).all(axis=1)
        if not finite.all():
            first = rows.start + int(finite.argmin())
            raise NonFiniteInputsError(f"input {first} contains NaN or infinite values", param=param)


def _train_and_validation(spec: JobSpec, samples: Mapping[str, Samples], kind: LabelKind) -> tuple[Part, Part]:
    train = _whole("train", samples["train"])
    if "validation" in samples:
        return train, _whole("validation", samples["validation"])
    held_from, data = train.samples, spec.data
    classes = None if kind == "targets" else held_from.labels
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
    shape: tuple[int, ...], layout: Layout, about: _About, normalization: Normalization
) -> Preprocessing:
    try:
        return Preprocessing(
            input_shape=shape, layout=layout, dtype=about.dtype, normalization=normalization, image=about.image,
            table=about.table,
        )
    except ValueError as error:
        raise UnusableArrayError(
            f"the normalization does not fit the inputs: {error}", param="/data/normalization"
        ) from error
