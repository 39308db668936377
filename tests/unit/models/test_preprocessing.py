from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.contract.spec import Normalization
from stillhouse.models.preprocessing import Layout, Preprocessing, RawBatch


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
