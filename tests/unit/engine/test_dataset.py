import gzip
import struct
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.contract.failures import (
    EmptyDataError,
    LabelCountMismatchError,
    MalformedNpzError,
    NonFiniteInputsError,
    StillhouseError,
    UnknownArrayError,
    UnusableArrayError,
)
from tests.fixtures.lessons import TEST, TRAIN, VALIDATION, Lesson
from worker.engine.data import Dataset, load_dataset


def load(lesson: Lesson, **sections: Any) -> Dataset:  # noqa: ANN401 - sections of the spec as JSON
    return load_dataset(lesson.spec(**sections), lesson.inputs)


ONLY_TRAIN = {"data": {"test": None}}


@pytest.mark.parametrize(
    ("shape", "layout", "is_table", "input_shape"),
    [
        ((40, 5), "columns", True, (5,)),
        ((40, 6, 7), "hw", False, (1, 6, 7)),
        ((40, 6, 7, 3), "hwc", False, (3, 6, 7)),
        ((40, 3, 6, 7), "chw", False, (3, 6, 7)),
        ((40, 6, 7, 1), "hwc", False, (1, 6, 7)),
    ],
)
def test_axes_are_inferred(
    lesson: Lesson, shape: tuple[int, ...], layout: str, is_table: bool, input_shape: tuple[int, ...]
) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    lesson.write_npz(TRAIN, inputs=inputs, labels=np.arange(40) % 3)
    dataset = load(lesson, **ONLY_TRAIN)
    assert (dataset.preprocessing.layout, dataset.is_table, dataset.input_shape) == (layout, is_table, input_shape)
    samples = dataset.train.samples
    assert torch.equal(dataset.preprocessing.arrange(samples.raw), samples.arranged)
    assert samples.arranged.is_contiguous()


def test_a_given_layout_wins(lesson: Lesson) -> None:
    lesson.write_npz(TRAIN, inputs=np.zeros((40, 3, 6, 4), np.uint8), labels=np.arange(40) % 3)
    assert load(lesson, data={"test": None, "layout": "chw"}).input_shape == (3, 6, 4)


def test_the_normalisation_is_measured_on_the_training_samples_alone(lesson: Lesson) -> None:
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (60, 4, 5, 3)).astype(np.uint8)
    lesson.write_npz(TRAIN, inputs=inputs, labels=np.arange(60) % 3)
    dataset = load(lesson, **ONLY_TRAIN)
    kept = inputs[dataset.train.ids.numpy()].astype(np.float64) / 255
    found = dataset.preprocessing.normalization
    assert len(dataset.train.ids) == 45
    assert found.scale == pytest.approx(1 / 255)
    assert found.mean == pytest.approx(kept.mean(axis=(0, 1, 2)).tolist())
    assert found.std == pytest.approx(kept.std(axis=(0, 1, 2)).tolist())


def test_columns_are_normalised_each_by_itself_and_a_constant_one_is_centred(lesson: Lesson) -> None:
    random = np.random.default_rng(0)
    inputs = np.stack([random.normal(1e3, 1e-1, 50), random.normal(-3, 10, 50), np.full(50, 7.0)], axis=1)
    lesson.write_npz(TRAIN, inputs=inputs, labels=np.arange(50) % 2)
    dataset = load(lesson, **ONLY_TRAIN)
    kept = inputs[dataset.train.ids.numpy()]
    found = dataset.preprocessing.normalization
    assert found.scale == 1
    assert found.mean == pytest.approx(kept.mean(axis=0).tolist())
    assert found.std == pytest.approx([*kept.std(axis=0)[:2].tolist(), 1.0])


def test_a_given_normalisation_is_taken_as_it_is(lesson: Lesson) -> None:
    given = {"scale": 0.5, "mean": [0.25], "std": [4.0]}
    assert load(lesson, data={"normalization": given}).preprocessing.normalization.model_dump() == given


def test_splits_keep_to_their_samples(lesson: Lesson) -> None:
    dataset = load(lesson)
    assert [len(part.ids) for part in dataset.parts] == [72, 24, 40]
    assert not set(dataset.train.ids.tolist()) & set(dataset.validation.ids.tolist())
    assert dataset.validation.samples is dataset.train.samples
    assert dataset.evaluated.name == "test"
    assert "25.0%" in dataset.validation.origin
    lesson.write_blobs(VALIDATION, 12, seed=3)
    given = load(lesson, data={"validation": {"artifact": VALIDATION}, "test": None})
    assert [len(part.ids) for part in given.parts] == [96, 12]
    assert given.validation.size().origin == "given"
    assert given.evaluated.name == "validation"


def test_idx_files_are_read_alike(lesson: Lesson) -> None:
    with np.load(lesson.inputs[TRAIN]) as arrays:
        images, labels = arrays["inputs"], arrays["labels"]
    files = {"art_images00000000000000": images, "art_labels00000000000000": labels}
    for name, array in files.items():
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        lesson.inputs[name] = lesson.folder / name
        lesson.inputs[name].write_bytes(gzip.compress(header + array.tobytes()))
    spec = lesson.spec()
    idx = {"kind": "idx", "train": {"inputs": "art_images00000000000000", "labels": "art_labels00000000000000"}}
    found = load_dataset(spec.model_validate(spec.model_dump() | {"data": idx}), lesson.inputs)
    samples = found.train.samples
    assert torch.equal(samples.raw, torch.from_numpy(images))
    assert samples.labels is not None
    assert samples.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int8", "bool", "float16", "float64"])
def test_every_real_type_is_usable(lesson: Lesson, dtype: str) -> None:
    inputs = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(dtype)
    lesson.write_npz(TRAIN, inputs=inputs, labels=np.arange(30) % 2)
    dataset = load(lesson, **ONLY_TRAIN)
    ids = torch.tensor([3, 1])
    values = dataset.train.samples.arranged.index_select(0, ids).double()
    assert torch.equal(values, torch.from_numpy(inputs[[3, 1]].astype(np.float64)))
    assert dataset.preprocessing.dtype == dtype


IMAGES = np.zeros((12, 8, 8), np.uint8)
COUNTED = np.arange(12) % 3
HOLED = np.zeros((12, 4))
HOLED[5, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "failure", "says"),
    [
        ({"inputs": IMAGES[:0], "labels": COUNTED[:0]}, EmptyDataError, "no samples"),
        ({"inputs": IMAGES, "labels": COUNTED[:11]}, LabelCountMismatchError, "12 inputs and 11 labels"),
        ({"inputs": IMAGES, "labels": COUNTED / 2}, UnusableArrayError, "float64"),
        ({"inputs": IMAGES, "labels": COUNTED[:, None]}, UnusableArrayError, r"\[12, 1\]"),
        ({"inputs": IMAGES}, UnknownArrayError, "labels"),
        ({"inputs": IMAGES[:, 0, 0], "labels": COUNTED}, UnusableArrayError, "1 axes"),
        ({"inputs": np.zeros((12, 1, 2, 3, 4)), "labels": COUNTED}, UnusableArrayError, "5 axes"),
        ({"inputs": np.zeros((12, 0)), "labels": COUNTED}, UnusableArrayError, "empty axis"),
        ({"inputs": np.full((12, 3), "x"), "labels": COUNTED}, UnusableArrayError, "real numbers"),
        ({"inputs": np.zeros((12, 3), complex), "labels": COUNTED}, UnusableArrayError, "real numbers"),
        ({"inputs": HOLED, "labels": COUNTED}, NonFiniteInputsError, "input 5"),
    ],
)
def test_unusable_training_data_are_told_with_their_place(
    lesson: Lesson, arrays: dict[str, Any], failure: type[StillhouseError], says: str
) -> None:
    lesson.write_npz(TRAIN, **arrays)
    with pytest.raises(failure, match=says) as caught:
        load(lesson, **ONLY_TRAIN)
    assert caught.value.param == "/data/train"


@pytest.mark.parametrize(
    "inputs", [np.zeros((12, 8, 9), np.uint8), np.zeros((12, 8, 8), np.float32), np.zeros((12, 8))]
)
def test_splits_of_other_shapes_or_types_are_refused(lesson: Lesson, inputs: Any) -> None:  # noqa: ANN401 - arrays
    lesson.write_npz(TEST, inputs=inputs, labels=COUNTED)
    with pytest.raises(UnusableArrayError, match="unlike those of the training split") as caught:
        load(lesson)
    assert caught.value.param == "/data/test"


def test_damaged_files_are_told_with_their_place(lesson: Lesson) -> None:
    lesson.inputs[TEST].write_bytes(b"PK")
    with pytest.raises(MalformedNpzError) as caught:
        load(lesson)
    assert caught.value.param == "/data/test"


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"data": {"layout": "chw"}}, "layout chw"),
        ({"data": {"normalization": {"mean": [0.0, 1.0], "std": [1.0, 1.0]}}}, "2 values for 1 channel"),
    ],
)
def test_a_spec_that_contradicts_the_data_is_told(lesson: Lesson, sections: dict[str, Any], says: str) -> None:
    with pytest.raises(UnusableArrayError, match=says):
        load(lesson, **sections)
