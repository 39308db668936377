import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.contract.spec import ImageFit, Normalization
from stillhouse.models.preprocessing import Layout, Preprocessing, RawBatch, RawSample
from stillhouse.models.table import CategoricalColumn, NumericColumn, Table
from tests.fixtures.archives import encoded, noise


def make(
    layout: Layout,
    shape: tuple[int, ...],
    dtype: str = "uint8",
    scale: float = 1 / 255,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
) -> Preprocessing:
    normalization = Normalization(scale=scale, mean=list(mean), std=list(std))
    return Preprocessing(input_shape=shape, layout=layout, dtype=dtype, normalization=normalization)


@pytest.mark.parametrize(("layout", "shape", "raw_shape"), [
    ("hw", (1, 4, 5), (4, 5)), ("hwc", (3, 4, 5), (4, 5, 3)), ("chw", (3, 4, 5), (3, 4, 5)), ("columns", (7,), (7,)),
])
def test_it_follows_its_formula(layout: Layout, shape: tuple[int, ...], raw_shape: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (6, *raw_shape), dtype=np.uint8)
    mean, std = list(np.linspace(0.1, 0.9, shape[0])), list(np.linspace(0.2, 0.5, shape[0]))
    preprocessing = make(layout, shape, mean=mean, std=std)
    axes = {"hw": raw[:, None] if layout == "hw" else raw, "hwc": np.moveaxis(raw, -1, 1)}.get(layout, raw)
    per_channel = (-1,) if layout == "columns" else (-1, 1, 1)
    expected = (axes / 255 - np.reshape(mean, per_channel)) / np.reshape(std, per_channel)
    answer = preprocessing(raw)
    assert preprocessing.raw_shape == raw_shape
    assert answer.dtype == torch.float32
    assert answer.is_contiguous()
    np.testing.assert_allclose(answer.numpy(), expected, atol=1e-5)
    assert torch.equal(answer, preprocessing(torch.from_numpy(raw)))


def test_a_batch_gives_the_same_bits_as_its_samples_alone() -> None:
    raw = torch.randint(0, 256, (33, 28, 28), dtype=torch.uint8)
    preprocessing = make("hw", (1, 28, 28))
    assert torch.equal(preprocessing(raw), torch.cat([preprocessing(raw[i : i + 1]) for i in range(33)]))


def test_it_leaves_its_argument_alone() -> None:
    raw = torch.ones(2, 3)
    make("columns", (3,), dtype="float32")(raw)
    assert torch.equal(raw, torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [">i2", ">f4", "int64", "uint16", "bool"])
def test_every_number_type_is_read(dtype: str) -> None:
    raw = np.ones((2, 3), dtype=dtype)
    raw.flags.writeable = False
    assert torch.equal(make("columns", (3,), dtype="float32", scale=1.0)(raw), torch.full((2, 3), 2.0))


def test_constants_first_made_for_inference_serve_training() -> None:
    preprocessing = make("columns", (3,), dtype="float32", mean=[0.123])
    with torch.inference_mode():
        preprocessing(torch.ones(1, 3))
    inputs = torch.ones(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(preprocessing.normalize(inputs).sum(), inputs)
    assert gradient.shape == (1, 3)


@pytest.mark.parametrize(("raw", "told"), [
    (np.zeros((2, 28, 27), np.uint8), r"\(N, 28, 28\).*got \(2, 28, 27\)"),
    (np.zeros((28, 28), np.uint8), "got"),
    (np.zeros((), np.uint8), "got"),
    (np.zeros((2, 28, 28), np.float32), "trained on images of uint8, and these are float32"),
    (np.array([["a"]]), "real numbers"),
    (np.zeros((2, 28, 28), np.complex64), "real numbers"),
    (torch.zeros((2, 28, 28), dtype=torch.complex64), "real numbers"),
    (np.array([None]), "real numbers"),
])
def test_unfit_input_is_refused_with_the_shape_it_should_have(raw: RawBatch, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make("hw", (1, 28, 28))(raw)


@pytest.mark.parametrize("wrong", [
    {"layout": "hw", "shape": (3, 4, 4)},
    {"layout": "columns", "shape": (3, 4, 4)},
    {"layout": "chw", "shape": (4,)},
    {"layout": "chw", "shape": (3, 4, 4), "mean": [0.0, 0.0], "std": [1.0, 1.0]},
    {"layout": "chw", "shape": (3, 0, 4)},
    {"layout": "chw", "shape": (3, 4, 4), "dtype": "object"},
    {"layout": "chw", "shape": (3, 4, 4), "dtype": "nonsense"},
])
def test_impossible_preprocessing_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        make(**wrong)


def test_json_gives_it_back() -> None:
    preprocessing = make("hwc", (3, 8, 8), mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def of_images(channels: Any, *size: int) -> Preprocessing:  # noqa: ANN401 - 1 or 3
    return Preprocessing(
        input_shape=(channels, *size), layout="hw" if channels == 1 else "hwc", dtype="uint8",
        normalization=Normalization(scale=1 / 255, mean=[0.5], std=[0.25]),
        image=ImageFit(size=list(size), channels=channels),
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_the_same_however_it_is_given(channels: int, tmp_path: Path) -> None:
    preprocessing = of_images(channels, 4, 6)
    pixels = noise(9, 9, 3)
    content = encoded(pixels)
    (tmp_path / "photo.png").write_bytes(content)
    expected = preprocessing([content])
    assert expected.shape == (1, channels, 4, 6)
    given: list[RawSample] = [
        content, tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(pixels), pixels,
    ]
    for sample in given:
        assert torch.equal(preprocessing(preprocessing.as_batch(sample)), expected)
    assert torch.equal(preprocessing(given), expected.repeat(len(given), 1, 1, 1))
    assert torch.equal(preprocessing(pixels[None].repeat(2, axis=0)), expected.repeat(2, 1, 1, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_right_size_are_one_array_as_before(channels: int) -> None:
    preprocessing = of_images(channels, 4, 6)
    pixels = noise(5, 4, 6) if channels == 1 else noise(5, 4, 6, 3)
    alone = torch.cat([preprocessing(preprocessing.as_batch(image)) for image in pixels])
    assert torch.equal(preprocessing(pixels), alone)
    assert torch.equal(preprocessing(torch.from_numpy(pixels)), alone)
    plain = preprocessing.model_copy(update={"image": None})
    assert torch.equal(preprocessing(pixels), plain(pixels))


def test_a_grey_image_of_another_size_is_one_image() -> None:
    grey, colour = of_images(1, 4, 6), of_images(3, 4, 6)
    pixels = noise(8, 12)
    assert grey(grey.as_batch(pixels)).shape == (1, 1, 4, 6)
    assert colour(colour.as_batch(pixels)).shape == (1, 3, 4, 6)
    assert grey(noise(7, 8, 12)).shape == (7, 1, 4, 6)


def test_no_images_are_no_images() -> None:
    assert of_images(3, 4, 6)([]).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(("raw", "told"), [
    ([b"no image"], "image 0: it is no image"),
    ([noise(3, 3), noise(3, 3, 7)], "image 1: an image has 1, 3 or 4 channels"),
    ([3], "image 0 is no path, bytes, array or picture"),
    ([{"a": 1}], "image 0 is no path"),
])
def test_what_is_no_image_is_told_with_its_place(raw: Any, told: str) -> None:  # noqa: ANN401 - anything
    with pytest.raises(ValueError, match=told):
        of_images(3, 4, 6)(raw)


def of_rows() -> Preprocessing:
    return Preprocessing(
        input_shape=(3,), layout="columns", dtype="float64", normalization=Normalization(
            mean=[1.75e9, 0.0, 0.0], std=[2.0, 1.0, 1.0]
        ),
        table=Table(columns=(NumericColumn(name="t"), CategoricalColumn(name="c", categories=("a", "b")))),
    )


def test_rows_are_encoded_and_standardised() -> None:
    preprocessing = of_rows()
    rows: list[RawSample] = [{"t": 1.75e9 + 3, "c": "b"}, {"t": "1749999999", "c": "?"}]
    # In float32 a second of 2025 would be lost: it counts in steps of 128.
    assert preprocessing(rows).tolist() == [[1.5, 0.0, 1.0], [-0.5, 0.0, 0.0]]
    assert preprocessing(preprocessing.as_batch(rows[0])).tolist() == [[1.5, 0.0, 1.0]]
    assert preprocessing(np.array([[1.75e9 + 3, 0.0, 1.0]])).tolist() == [[1.5, 0.0, 1.0]]
    with pytest.raises(ValueError, match="rows as mappings"):
        preprocessing(["a,b"])


def test_only_models_of_images_or_tables_take_lists() -> None:
    with pytest.raises(ValueError, match="expected an array of shape"):
        make("columns", (3,))([[1, 2, 3]])  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", [
    {"image": ImageFit(size=[4, 5], channels=3)}, {"image": ImageFit(size=[4, 6])}, {"layout": "chw"},
    {"table": of_rows().table},
])
def test_a_fit_to_another_shape_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Preprocessing.model_validate(of_images(3, 4, 6).model_dump() | wrong)


def test_images_and_tables_come_back_from_json_and_older_readers_can_read_the_rest() -> None:
    for preprocessing in (of_images(1, 4, 6), of_rows()):
        assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    assert set(json.loads(make("hw", (1, 4, 5)).to_json())) == {"input_shape", "layout", "dtype", "normalization"}
