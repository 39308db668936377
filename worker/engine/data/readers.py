"""From the files of a data set to raw splits: one branch for each format."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import numpy.typing as npt

from stillhouse.contract.failures import (
    EmptyDataError,
    LabelCountMismatchError,
    StillhouseError,
    UnusableArrayError,
    UnusableSoftLabelsError,
)
from stillhouse.contract.spec import (
    CsvData,
    CsvSplit,
    HuggingFaceSplit,
    IdxSplit,
    ImageFit,
    ImagesSplit,
    JobSpec,
    LabelKind,
    NpzSplit,
    ParquetSplit,
    PictureData,
    Split,
    label_kind,
)
from worker.engine.data.decode import Decoder
from worker.engine.data.idx import read_idx
from worker.engine.data.image_folder import read_images
from worker.engine.data.layout import check_inputs
from worker.engine.data.npz import read_npz
from worker.engine.data.raw import RawLabels, RawSplit
from worker.engine.data.room import Room
from worker.engine.data.soft_labels import SoftLabels, read_soft_labels

if TYPE_CHECKING:
    from worker.engine.data.table import TableReader

Array = npt.NDArray[Any]

MATRIX_AXES = 2


class Reader:
    """Reads the splits of one job alike; the training split comes first and settles what the spec leaves open."""

    def __init__(self, spec: JobSpec, inputs: Mapping[str, Path], room: Room) -> None:
        self._data, self._inputs, self._room = spec.data, inputs, room
        self._kind = label_kind(spec.task.kind)
        self._decoder = Decoder(spec.data.image if isinstance(spec.data, PictureData) else ImageFit(), room)
        self._table: TableReader | None = None

    def read(self, name: str, split: Split) -> RawSplit:
        """The split called `name`. Raises the StillhouseError that fits a defect, with its place in the spec."""
        param = f"/data/{name}"
        try:
            return self._read(name, split, param)
        except StillhouseError as error:
            error.param = error.param or param
            raise

    def _read(self, name: str, split: Split, param: str) -> RawSplit:
        match split:
            case IdxSplit() | NpzSplit():
                return self._arrays(split, param)
            case ImagesSplit():
                return read_images(split, self._inputs[split.artifact], self._decoder, param)
            case ParquetSplit():
                from worker.engine.data.parquet import read_parquet  # noqa: PLC0415 - Arrow starts threads: not where the forkserver preloads this

                return read_parquet(split, self._inputs, decoder=self._decoder, room=self._room, param=param)
            case HuggingFaceSplit():
                from worker.engine.data.hugging_face import read_hugging_face  # noqa: PLC0415 - as above

                path = self._inputs[split.artifact]
                return read_hugging_face(split, path, name, decoder=self._decoder, room=self._room, param=param)
            case CsvSplit():
                return self._rows(split, param)
        assert_never(split)

    def _rows(self, split: CsvSplit, param: str) -> RawSplit:
        from worker.engine.data.table import TableReader  # noqa: PLC0415 - as above

        assert isinstance(self._data, CsvData)  # noqa: S101 - which has no other splits
        self._table = self._table or TableReader(self._data, self._room)
        return self._table.read(split, self._inputs[split.artifact], param)

    def _arrays(self, split: IdxSplit | NpzSplit, param: str) -> RawSplit:
        soft: SoftLabels | None = None
        if isinstance(split, IdxSplit):
            found = read_idx(self._inputs[split.inputs], self._room)
            labels = read_idx(self._inputs[split.labels]) if split.labels else None
        else:
            path = self._inputs[split.artifact]
            found = read_npz(path, split.inputs, self._room)
            labels = read_npz(path, split.labels) if split.labels else None
            soft = read_soft_labels(
                split.soft_labels, lambda names: _one_array(path, names, param), len(found) if found.ndim else 0,
                f"{param}/soft_labels",
            )
        check_inputs(found, param)
        if found.ndim == 0 or len(found) == 0:
            raise EmptyDataError(f"{param} has no samples", param=param)
        return RawSplit(found, found.dtype.name, _raw_labels(labels, len(found), self._kind, param), soft)


def _one_array(path: Path, names: list[str], param: str) -> Array:
    if len(names) > 1:
        raise UnusableSoftLabelsError("soft labels of an NPZ file are one array", param=f"{param}/soft_labels")
    return read_npz(path, names[0])


# Of labels: kinds of types, numbers of axes, and what they must be.
_LABEL_ARRAYS: Mapping[LabelKind, tuple[str, set[int], str]] = {
    "classes": (
        "iu", {1},
        (
            "labels must be one integer per input, unless task.kind is multi_label (a row of 0 and 1 per input) or "
            "regression (numbers)"
        ),
    ),
    "multi_hot": ("biuf", {MATRIX_AXES}, "labels must be a row of 0 and 1 per input, one column for each label"),
    "targets": ("iuf", {1, MATRIX_AXES}, "targets must be numbers, one or a row of them per input"),
}


def _raw_labels(labels: Array | None, num_samples: int, kind: LabelKind, param: str) -> RawLabels | None:
    if labels is None:
        return None
    types, axes, wanted = _LABEL_ARRAYS[kind]
    if labels.dtype.kind not in types or labels.ndim not in axes or 0 in labels.shape[1:]:
        raise UnusableArrayError(f"{wanted}; they are {labels.dtype} of shape {list(labels.shape)}", param=param)
    if len(labels) != num_samples:
        raise LabelCountMismatchError(f"there are {num_samples:,} inputs and {len(labels):,} labels", param=param)
    if labels.dtype.kind != "f":
        return RawLabels(labels.astype(np.int64))
    known = ~np.isnan(labels.reshape(num_samples, -1)).all(axis=1)
    return RawLabels(labels, known=None if known.all() else np.asarray(known))
