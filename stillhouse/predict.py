"""Answers for a file: an array, a set of images, one picture, or the rows of a table."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.spec import Task
from stillhouse.models.answers import Answer
from stillhouse.models.bundle import CompressedModel, load
from stillhouse.models.images import fit_image, open_image
from stillhouse.models.preprocessing import Preprocessing

Array = npt.NDArray[Any]

MAX_BYTES: Final = 4 * 1024**3
_CHUNK: Final = 1024 * 1024
_PICTURE_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
_PICTURE_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_IDX_TYPES: Final = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NUM_MAGIC: Final = 4


class UnusableInputError(ValueError):
    """The file cannot be read, or its content does not fit the model."""


@dataclass(frozen=True)
class Answers:
    """One answer for each sample of a file, in its order. `note` tells what was done to the file to make it fit."""

    predictions: list[Answer]
    label_names: tuple[str, ...]
    task: Task
    note: str | None = None


def predict_file(bundle: str | Path, file: str | Path, *, array: str | None = None) -> Answers:
    """Answers of the bundle's model for a .npy, .npz or IDX file (gzipped or not), a picture, or a CSV file.

    `array` names the array of an NPZ file; `inputs`, or the only one, when left out. The file is recognised by its
    content. Raises InvalidBundleError, UnusableInputError, or OSError when a file cannot be opened.
    """
    return answer(load(bundle), Path(file), array=array)


def answer(model: CompressedModel, file: Path, *, array: str | None = None) -> Answers:
    """As `predict_file`, for a model that is loaded already."""
    samples, note = read_samples(file, model.preprocessing, array=array)
    with _told_as_unusable(file):
        return Answers(model.predict(samples), model.label_names, model.task, note)


def read_samples(file: Path, preprocessing: Preprocessing, *, array: str | None = None) -> tuple[Array, str | None]:
    """Raw samples of a file, as the model was trained on them, and what was done to make a picture fit."""
    with _told_as_unusable(file):
        content = _content(file)
        if content.startswith(b"\x93NUMPY"):
            return _load_numpy(content), None
        if content.startswith(b"PK\x03\x04"):
            return _from_npz(content, array), None
        if content.startswith(b"\x00\x00"):
            return _from_idx(content), None
        if preprocessing.table is not None:
            return preprocessing.table.encode(_rows(content, preprocessing.table.delimiter)), None
        return _from_picture(content, preprocessing)


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        is_gzipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        return _bounded(gzip.GzipFile(fileobj=stream) if is_gzipped else stream)


def _bounded(stream: BinaryIO | gzip.GzipFile) -> bytes:
    """Everything to the end, where gzip compares its checksum; but never more than is sane."""
    content = bytearray()
    while chunk := stream.read(_CHUNK):
        content += chunk
        if len(content) > MAX_BYTES:
            raise ValueError(f"it holds more than {MAX_BYTES} bytes")
    return bytes(content)


def _load_numpy(content: bytes) -> Array:
    loaded: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return loaded


def _from_npz(content: bytes, array: str | None) -> Array:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    name = array or ("inputs" if "inputs" in sizes else next(iter(sizes)) if len(sizes) == 1 else None)
    if name is None:
        raise ValueError(f"it holds {', '.join(sorted(sizes)) or 'no array'}; say which one to read")
    if name not in sizes:
        raise ValueError(f"it has no array {name!r}; it holds {', '.join(sorted(sizes))}")
    if sizes[name] > MAX_BYTES:
        raise ValueError(f"its array {name!r} has more than {MAX_BYTES} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        chosen: Array = arrays[name]
        return chosen


def _from_idx(content: bytes) -> Array:
    if len(content) < _NUM_MAGIC or content[2] not in _IDX_TYPES or content[3] == 0:
        raise ValueError("it is no IDX file of a known type, and nothing else that is known")
    start = _NUM_MAGIC + 4 * content[3]
    shape = [int(size) for size in np.frombuffer(content[_NUM_MAGIC:start], ">u4")]
    dtype = np.dtype(_IDX_TYPES[content[2]])
    if len(content) != start + prod(shape) * dtype.itemsize:
        raise ValueError(f"its header announces {shape} values of {dtype.itemsize} bytes, and its size is another")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _rows(content: bytes, delimiter: str) -> list[dict[str, str]]:
    """Rows of a CSV file by the names in its header row."""
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} does not have {len(reader.fieldnames or [])} cells as the header")
        rows.append(row)
    return rows


def _from_picture(content: bytes, preprocessing: Preprocessing) -> tuple[Array, str | None]:
    if preprocessing.image is not None:
        return _fitted(content, preprocessing)
    if preprocessing.layout == "columns":
        raise ValueError("the model reads rows of numbers; give it a .npy, .npz or IDX file")
    if np.dtype(preprocessing.dtype) != np.uint8:
        raise ValueError(f"the model was trained on {preprocessing.dtype} values, and a picture has bytes; give a .npy")
    channels, height, width = preprocessing.input_shape
    if channels not in _PICTURE_MODES:
        raise ValueError(f"the model reads images of {channels} channels, which no picture has; give it a .npy")
    pixels, note = _pixels(content, (width, height), _PICTURE_MODES[channels])
    if preprocessing.layout == "chw":
        pixels = pixels.transpose(2, 0, 1)
    return pixels.reshape(1, *preprocessing.raw_shape), note


def _fitted(content: bytes, preprocessing: Preprocessing) -> tuple[Array, str | None]:
    """The picture as the training images were decoded."""
    assert preprocessing.image is not None  # noqa: S101 - asked before
    channels, height, width = preprocessing.input_shape
    try:
        picture = open_image(content, _PICTURE_FORMATS)
        pixels = fit_image(picture, preprocessing.image)
    except StillhouseError as error:
        raise ValueError(f"the picture cannot be used: {error.message}") from error
    return pixels.reshape(1, *preprocessing.raw_shape), _fitting(picture, (width, height), _PICTURE_MODES[channels])


def _pixels(content: bytes, size: tuple[int, int], mode: str) -> tuple[Array, str | None]:
    """The picture as (height, width, channels) bytes."""
    try:
        with Image.open(io.BytesIO(content), formats=_PICTURE_FORMATS) as picture:
            note = _fitting(picture, size, mode)
            fitted = picture.convert(mode)
    except UnidentifiedImageError as error:
        raise ValueError("neither an array (.npy, .npz, IDX) nor a picture") from error
    except OSError as error:
        raise ValueError(f"the picture is damaged: {error}") from error
    if fitted.size != size:
        fitted = fitted.resize(size, Image.Resampling.BICUBIC)
    return np.atleast_3d(np.asarray(fitted, np.uint8)), note


def _fitting(picture: Image.Image, size: tuple[int, int], mode: str) -> str | None:
    changes = []
    if picture.mode != mode:
        changes.append(f"converted from {picture.mode} to {mode}")
    if picture.size != size:
        changes.append(f"resized from {picture.width}x{picture.height} to {size[0]}x{size[1]}")
    return "the picture was " + " and ".join(changes) if changes else None


@contextmanager
def _told_as_unusable(file: Path) -> Iterator[None]:
    """Whatever NumPy, zipfile, zlib or Pillow find wrong with the bytes is one thing to the caller."""
    try:
        yield
    except (
        ValueError, SyntaxError, EOFError, csv.Error, MemoryError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile,
        Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:
        raise UnusableInputError(f"{file.name}: {error}") from error
