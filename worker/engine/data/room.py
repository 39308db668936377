"""Where decoded samples lie: in memory while they fit, else in files that are mapped into it."""

import os
import shutil
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stillhouse.contract.failures import StorageFullError, UnusableArrayError
from worker.engine.data.limits import check_decoded_size
from worker.engine.memory import available_bytes

Array = npt.NDArray[Any]

FOLDER: Final = "samples"
MAX_MAPPED_BYTES: Final = 1024**4
# The other half is for soft labels, models and batches.
MEMORY_SHARE: Final = 2
_CHUNK_BYTES: Final = 16 * 1024**2


class Room:
    """Gives arrays to decode into. All that one room gave counts together."""

    def __init__(self, scratch: Path | None = None, budget: int | None = None) -> None:
        """Up to `budget` bytes lie in memory, half of what is available when left out.

        Without a folder `scratch` what does not fit is refused.
        """
        available = available_bytes() if budget is None else None
        self._left = budget if available is None else available // MEMORY_SHARE
        self._folder = None if scratch is None else scratch / FOLDER
        self._num_files = 0

    def array(self, what: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of any content, on disk (a memmap) where memory is short. `what` names it in messages.

        Raises OutOfMemoryError, StorageFullError or UnusableArrayError.
        """
        size = prod(shape) * np.dtype(dtype).itemsize
        if self._folder is None:
            check_decoded_size(what, shape, np.dtype(dtype).itemsize)
        elif self._left is not None and size > self._left:
            return self._mapped(what, self._folder, shape, np.dtype(dtype))
        if self._left is not None:
            self._left = max(0, self._left - size)
        return np.empty(shape, dtype)

    def converted(self, array: Array, dtype: npt.DTypeLike) -> Array:
        """The array in another type."""
        if array.dtype == np.dtype(dtype):
            return array
        result = self.array("the converted array", array.shape, dtype)
        for rows in chunks(array):
            result[rows] = array[rows]
        return result

    def channels_first(self, images: Array) -> Array:
        """Images (N, height, width, channels) as (N, channels, height, width), contiguous."""
        count, height, width, channels = images.shape
        result = self.array("the images", (count, channels, height, width), images.dtype)
        for rows in chunks(images):
            result[rows] = images[rows].transpose(0, 3, 1, 2)
        return result

    def _mapped(self, what: str, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size = prod(shape) * dtype.itemsize
        if size > MAX_MAPPED_BYTES:
            raise UnusableArrayError(f"{what} has {size:,} bytes; at most {MAX_MAPPED_BYTES:,} can be decoded")
        folder.mkdir(exist_ok=True)
        if size > (free := shutil.disk_usage(folder).free):
            raise StorageFullError(f"{what} needs {size:,} bytes of the worker's disk, and {free:,} are free")
        path = folder / str(self._num_files)
        self._num_files += 1
        with path.open("wb") as file:
            # A hole that finds no room when it is written to would kill the trainer without a word.
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype, "r+", shape=shape)


def is_mapped(array: Array) -> bool:
    """Whether an array lies on disk."""
    return isinstance(array, np.memmap)


def chunks(array: Array) -> list[slice]:
    """Rows that are worked on at once: all of them would be in memory twice."""
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    return [slice(start, start + rows) for start in range(0, len(array), rows)]
