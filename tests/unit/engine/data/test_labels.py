"""Labels of every kind, by way of columns of Arrow's and of arrays."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stillhouse.contract.failures import (
    LabelOutOfRangeError,
    OutputWidthMismatchError,
    StillhouseError,
    UnknownLabelError,
    UnusableArrayError,
    UnusableLabelsError,
)
from stillhouse.contract.spec import JobSpec, LabelKind, label_kind
from tests.fixtures.datasets import Shelf
from worker.engine.data.column_labels import labels_of
from worker.engine.data.labels import Labels, encode_labels
from worker.engine.data.raw import RawLabels, RawSplit
from worker.engine.data.readers import _raw_labels


def spec(**data: Any) -> JobSpec:  # noqa: ANN401 - any JSON
    artifact = "art_" + 20 * "a"
    return JobSpec.model_validate({
        "teacher": {"kind": "train", "architecture": {"kind": "mlp"}}, "student": {"kind": "mlp"},
        "data": {"kind": "npz", "train": {"artifact": artifact}, **data},
    })


def split(labels: RawLabels) -> RawSplit:
    return RawSplit(np.zeros((len(labels), 1)), "float64", labels)


def encode(
    kind: LabelKind, train: RawLabels, test: RawLabels | None = None, **data: Any  # noqa: ANN401 - any JSON
) -> tuple[dict[str, Labels | None], list[str] | None]:
    raws = {"train": split(train), **({"test": split(test)} if test else {})}
    return encode_labels(raws, spec(**data).data, kind)


def columns(*arrays: Any) -> RawLabels:  # noqa: ANN401 - what Arrow takes
    names = [f"c{number}" for number in range(len(arrays))]
    return labels_of([array if isinstance(array, pa.Array) else pa.array(array) for array in arrays], names)


def values(labels: Labels | None) -> list[Any]:
    assert labels is not None
    return labels.values.tolist()


@pytest.mark.parametrize(
    ("task", "kind"),
    [(None, "classes"), ("image_classification", "classes"), ("tabular_classification", "classes"),
     ("classification", "classes"), ("multi_label", "multi_hot"), ("regression", "targets"), ("embedding", "targets")],
)
def test_a_task_tells_what_its_labels_are(task: str | None, kind: str) -> None:
    assert label_kind(task) == kind


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (columns([1, 0, 1], [True, False, False]), [[1, 1], [0, 0], [1, 0]]),
        (columns(pa.array([[1, 0], [0, 0], [1, 1]], pa.list_(pa.int8(), 2))), [[1, 0], [0, 0], [1, 1]]),
        (columns([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), [[1, 0], [0, 0], [1, 1]]),
        (columns([[1, 0, 0], [0, 0, 1], [1, 1, 1]]), [[1, 0, 0], [0, 0, 1], [1, 1, 1]]),
        (columns([[2, 0], [], [1]]), [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        (columns([[0, 1], [1, 0], [1, 0]]), [[1, 1], [1, 1], [1, 1]]),
        (columns([[2, 2], [1, 1], [0, 2]]), [[0, 0, 1], [0, 1, 0], [1, 0, 1]]),
        (columns([["b", "a"], [], ["c"]]), [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
    ],
)
def test_several_labels_are_a_row_of_0_and_1(raw: RawLabels, rows: list[list[int]]) -> None:
    labels, _ = encode("multi_hot", raw)
    assert values(labels["train"]) == rows
    assert labels["train"] is not None
    assert labels["train"].mask is None


def test_named_labels_are_those_of_the_training_split() -> None:
    labels, names = encode("multi_hot", columns([["dog"], ["cat", "cow"]]), columns([["cow"], []]))
    assert names == ["cat", "cow", "dog"]
    assert values(labels["test"]) == [[0, 1, 0], [0, 0, 0]]
    with pytest.raises(UnknownLabelError, match="`bird` of sample 1") as caught:
        encode("multi_hot", columns([["dog"], ["cat"]]), columns([["cat"], ["dog", "bird"]]))
    assert caught.value.param == "/data/test"


def test_numbered_labels_are_as_many_as_the_spec_or_the_training_split_tells() -> None:
    labels, _ = encode("multi_hot", columns([[0], [2]]), columns([[1], []]))
    assert values(labels["test"]) == [[0, 1, 0], [0, 0, 0]]
    labels, _ = encode("multi_hot", columns([[0], [2]]), num_classes=4)
    assert values(labels["train"]) == [[1, 0, 0, 0], [0, 0, 1, 0]]
    with pytest.raises(UnusableLabelsError, match="label 3 of sample 0 is not one of 3"):
        encode("multi_hot", columns([[0], [2]]), columns([[3]]))


def test_partly_labelled_rows_are_masked() -> None:
    for raw in (columns([[1], None, []]), columns([0, None, 0], [1, None, 0])):
        labels, _ = encode("multi_hot", raw)
        assert values(labels["train"]) == [[0, 1], [0, 0], [0, 0]]
        assert labels["train"] is not None
        assert labels["train"].mask is not None
        assert labels["train"].mask.tolist() == [True, False, True]
    fixed = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float64(), 2))
    labels, _ = encode("targets", columns(fixed))
    assert values(labels["train"]) == [[1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (columns([0.5, 1.5]), [[0.5], [1.5]]), (columns([1, 2], [0.5, 1.5]), [[1, 0.5], [2, 1.5]]),
        (columns([[0.5, 1.5], [2.5, 3.5]]), [[0.5, 1.5], [2.5, 3.5]]), (columns([3, 7]), [[3], [7]]),
    ],
)
def test_targets_are_rows_of_numbers(raw: RawLabels, rows: list[list[float]]) -> None:
    labels, names = encode("targets", raw)
    assert values(labels["train"]) == rows
    assert names is None


REFUSED: list[tuple[LabelKind, RawLabels, RawLabels | None, dict[str, Any], type[StillhouseError], str]] = [
    ("multi_hot", columns([1, 0]), None, {}, UnusableLabelsError, "one value per sample"),
    ("multi_hot", columns([0.5, 1.0], [1.0, 0.0]), None, {}, LabelOutOfRangeError, "sample 0 in column 0"),
    ("multi_hot", columns([1, 0], [1, 0]), columns([1], [0], [1]), {}, OutputWidthMismatchError, "3 columns, and"),
    ("multi_hot", columns([1, 0], [1, 0]), None, {"label_names": ["a", "b", "c"]}, OutputWidthMismatchError, "has 3"),
    ("multi_hot", columns([["a"], ["b"]]), None, {"label_names": ["a", "c"]}, UnknownLabelError, "`b` of sample 1"),
    ("targets", columns(["a", "b"]), None, {}, UnusableLabelsError, "from numbers"),
    ("targets", columns([[1], [2, 3]]), None, {}, UnusableLabelsError, "from numbers"),
    ("targets", columns([1.0, float("inf")]), None, {}, UnusableLabelsError, "of sample 1 in column 0 is no finite"),
    ("classes", columns([1, 0], [1, 0]), None, {}, UnusableArrayError, "one integer per input"),
    ("classes", columns([["a"], ["b"]]), None, {}, UnusableArrayError, "one integer per input"),
]


@pytest.mark.parametrize(("kind", "train", "test", "data", "failure", "told"), REFUSED)
def test_labels_of_another_kind_are_told(
    kind: LabelKind, train: RawLabels, test: RawLabels | None, data: dict[str, Any], failure: type[StillhouseError],
    told: str,
) -> None:
    with pytest.raises(failure, match=told):
        encode(kind, train, test, **data)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (([1, None], [1, 0]), "row 1 has some of its labels"), (([1, 0], ["a", "b"]), "`c1` is no column of numbers"),
        (([[1], [None]],), "a null in it"), (([[[1]], [[2]]],), "lists of lists"),
        (([[1.0], [1.0, 2.0]],), "not all of one length"), (([{"a": 1}],), "no label"),
    ],
)
def test_columns_that_are_no_labels_of_any_kind_are_told(arrays: tuple[Any, ...], told: str) -> None:
    with pytest.raises(UnusableLabelsError, match=told):
        columns(*arrays)


@pytest.mark.parametrize(
    ("kind", "array", "rows", "mask"),
    [
        ("classes", np.array([1, 0, 2]), [1, 0, 2], None),
        ("multi_hot", np.array([[1, 0], [0, 1]], bool), [[1, 0], [0, 1]], None),
        ("targets", np.array([1, 2]), [[1], [2]], None),
        ("targets", np.array([[np.nan, np.nan], [1.5, 2]]), [[0, 0], [1.5, 2]], [False, True]),
        ("multi_hot", np.array([[1.0, 0.0], [np.nan, np.nan]]), [[1, 0], [0, 0]], [True, False]),
    ],
)
def test_arrays_are_labels_too(kind: LabelKind, array: Any, rows: list[Any], mask: list[bool] | None) -> None:  # noqa: ANN401 - an array
    raw = _raw_labels(array, len(array), kind, "/data/train")
    assert raw is not None
    labels, _ = encode(kind, raw)
    assert values(labels["train"]) == rows
    assert labels["train"] is not None
    found = labels["train"].mask
    assert (None if found is None else found.tolist()) == mask


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("classes", np.array([0.0, 1.0])), ("classes", np.array([[0], [1]])), ("multi_hot", np.array([0, 1])),
        ("multi_hot", np.array([["a"], ["b"]])), ("targets", np.zeros((2, 2, 2))), ("targets", np.array(["a", "b"])),
        ("targets", np.array([True, False])),
    ],
)
def test_arrays_of_another_kind_are_told(kind: LabelKind, array: Any) -> None:  # noqa: ANN401 - an array
    with pytest.raises(UnusableArrayError, match=r"(labels|targets) must be"):
        _raw_labels(array, 2, kind, "/data/train")


def test_a_declared_number_stands_for_no_label_in_arrays(shelf: Shelf) -> None:
    np.savez(shelf.folder / "a.npz", inputs=np.zeros((8, 3)), labels=np.array([0, 255, 1, 1] * 2, np.uint8))
    artifact = shelf.put("npz", (shelf.folder / "a.npz").read_bytes())
    samples = shelf.load("npz", {"artifact": artifact}, missing_label=255).train.samples
    assert samples.labels is not None
    assert samples.mask is not None
    assert samples.labels.tolist() == [0, 0, 1, 1] * 2
    assert samples.mask.tolist() == [True, False, True, True] * 2
    assert samples.labelled().tolist() == [0, 2, 3, 4, 6, 7]
