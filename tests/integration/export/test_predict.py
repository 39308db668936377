import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import stillhouse
from stillhouse.models.bundle import CompressedModel
from stillhouse.predict import UnusableInputError, answer, predict_file, read_samples
from tests.fixtures.results import Trained, make_preprocessing

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def model(bundle: Path) -> CompressedModel:
    return stillhouse.load(bundle)


@pytest.fixture(scope="module")
def raw(trained: Trained) -> Array:
    return np.asarray(trained.evaluation.inputs[:5].numpy())


def idx(raw: Array) -> bytes:
    return b"\x00\x00\x08" + bytes([raw.ndim]) + struct.pack(f">{raw.ndim}I", *raw.shape) + raw.tobytes()


def write_npz(path: Path, **arrays: Array) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_npy(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.save(file, array)


WRITERS: dict[str, Callable[[Path, Array], object]] = {
    "npy": write_npy,
    "npz": lambda path, raw: write_npz(path, inputs=raw, labels=raw[:, 0, 0]),
    "npz with one array": lambda path, raw: write_npz(path, whatever=raw),
    "idx": lambda path, raw: path.write_bytes(idx(raw)),
    "idx.gz": lambda path, raw: path.write_bytes(gzip.compress(idx(raw))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_array_file_is_answered(kind: str, model: CompressedModel, raw: Array, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "samples", raw)
    answers = answer(model, tmp_path / "samples")
    assert answers.predictions == model.predict(raw)
    assert answers.note is None


@pytest.mark.parametrize("extension", ["png", "bmp"])
def test_a_picture_is_answered(extension: str, model: CompressedModel, raw: Array, tmp_path: Path) -> None:
    Image.fromarray(raw[0]).save(tmp_path / f"one.{extension}")
    answers = answer(model, tmp_path / f"one.{extension}")
    assert answers.predictions == model.predict(raw[:1])
    assert answers.note is None


def test_a_picture_that_does_not_fit_is_made_to_and_that_is_told(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 30), "white").save(tmp_path / "big.jpg")
    answers = predict_file(bundle, tmp_path / "big.jpg")
    assert len(answers.predictions) == 1
    assert answers.note == "the picture was converted from RGB to L and resized from 50x30 to 10x12"


@pytest.mark.parametrize(("layout", "shape"), [("hwc", (4, 6, 3)), ("chw", (3, 4, 6))])
def test_a_colour_picture_gets_the_axes_of_the_training_data(
    layout: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    preprocessing = make_preprocessing().model_copy(update={"input_shape": (3, 4, 6), "layout": layout})
    samples, note = read_samples(tmp_path / "colour.png", preprocessing)
    assert note is None
    assert samples.shape == (1, *shape)
    np.testing.assert_array_equal(samples[0] if layout == "hwc" else samples[0].transpose(1, 2, 0), pixels)


def png(size: tuple[int, int] = (10, 12)) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 50).save(stream, "PNG")
    return stream.getvalue()


def pickled(path: Path) -> None:
    write_npy(path, np.array([{"a": 1}], dtype=object))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello"), "neither an array"),
    "empty": (lambda path: path.write_bytes(b""), "neither an array"),
    "pickle in npy": (pickled, "allow_pickle=False"),
    "cut npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "EOF"),
    "cut gzip": (lambda path: path.write_bytes(gzip.compress(b"\x00\x00\x08\x01" * 99)[:-6]), "end-of-stream"),
    "idx of wrong size": (lambda path: path.write_bytes(idx(np.zeros((2, 12, 10), np.uint8))[:-1]), "announces"),
    "idx of unknown type": (lambda path: path.write_bytes(b"\x00\x00\x99\x01\x00\x00\x00\x00"), "no IDX file"),
    "cut picture": (lambda path: path.write_bytes(png()[:90]), "damaged"),
    "several arrays": (lambda path: write_npz(path, a=np.zeros(1), b=np.zeros(1)), "holds a, b; say which"),
    "wrong shape": (lambda path: write_npy(path, np.zeros((3, 9, 9), np.uint8)), r"\(N, 12, 10\)"),
    "wrong type": (lambda path: write_npy(path, np.zeros((3, 12, 10))), "trained on images of uint8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_told_plainly(name: str, model: CompressedModel, tmp_path: Path) -> None:
    write, told = BAD[name]
    write(tmp_path / "input.bin")
    with pytest.raises(UnusableInputError, match=rf"input\.bin: .*({told})"):
        answer(model, tmp_path / "input.bin")


def test_a_file_that_unpacks_beyond_the_bound_is_refused(
    model: CompressedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.predict.MAX_BYTES", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(UnusableInputError, match="more than 1000 bytes"):
        answer(model, tmp_path / "bomb.gz")


def test_a_named_array_is_read(model: CompressedModel, raw: Array, tmp_path: Path) -> None:
    write_npz(tmp_path / "two.npz", first=raw, second=raw[::-1])
    assert answer(model, tmp_path / "two.npz", array="second").predictions == model.predict(raw[::-1].copy())
    with pytest.raises(UnusableInputError, match="no array 'third'; it holds first, second"):
        answer(model, tmp_path / "two.npz", array="third")


def test_no_sample_is_no_answer(model: CompressedModel, tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 12, 10), np.uint8))
    assert answer(model, tmp_path / "none.npy").predictions == []


def test_a_model_of_tables_reads_no_picture(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png())
    with pytest.raises(UnusableInputError, match="rows of numbers"):
        read_samples(tmp_path / "one.png", make_preprocessing(is_table=True))
