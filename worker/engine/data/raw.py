"""What a reader of any format hands over: one split as arrays, its labels not numbered yet."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillhouse.contract.spec import ImageFit
from stillhouse.models.table import Table
from worker.engine.data.soft_labels import SoftLabels

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RawLabels:
    """Labels as the data have them. N samples."""

    # (N,), or (N, L) of several labels or targets. With `names` a value is the place of a name; with `offsets` the
    # values of all samples lie one after the other, and those of sample i are values[offsets[i]:offsets[i + 1]].
    values: Array
    names: tuple[str, ...] | None = None
    offsets: npt.NDArray[np.int64] | None = None  # (N + 1,)
    known: npt.NDArray[np.bool_] | None = None  # (N,): which samples have a label; all of them where it is None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1


@dataclass(frozen=True)
class RawSplit:
    """One split in the order of its file."""

    inputs: Array  # (N, ...); decoded images are (N, channels, height, width)
    dtype: str  # of the values as they were stored, by NumPy's name
    labels: RawLabels | None
    soft_labels: SoftLabels | None = None
    label_names: tuple[str, ...] | None = None  # of the outputs, where the data name them apart from the labels
    image: ImageFit | None = None  # how images were decoded, nothing left open
    table: Table | None = None  # how rows were encoded
