"""Parts of IDX files as files of their own: for splits that a benchmark must not leave to chance."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Digits:
    """Images (N, 28, 28) and their classes (N,), of MNIST or of what is shaped like it."""

    images: Bytes
    labels: Bytes

    def __getitem__(self, chosen: slice | npt.NDArray[np.bool_]) -> "Digits":
        return Digits(self.images[chosen], self.labels[chosen])

    def __len__(self) -> int:
        return len(self.labels)


def read_digits(folder: Path, name: str) -> Digits:
    """The images and labels of `train` or `t10k`, as they are published: gzipped, with names of their own."""
    images = _content(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return Digits(images, _content(folder / f"{name}-labels-idx1-ubyte.gz", 8))


def write_digits(folder: Path, name: str, digits: Digits) -> dict[str, Path]:
    """Write a split: `images` and `labels` -> file."""
    written = {}
    for what, array in (("images", digits.images), ("labels", digits.labels)):
        written[what] = folder / f"{name}-{what}.idx"
        written[what].write_bytes(_header(array) + array.tobytes())
    return written


def _content(file: Path, offset: int) -> Bytes:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=offset)


def _header(array: Bytes) -> bytes:
    unsigned_bytes = 8
    return bytes([0, 0, unsigned_bytes, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
