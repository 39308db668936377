from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from stillhouse.contract.failures import MissingValuesError, StillhouseError, UnknownArrayError, UnusableSoftLabelsError
from tests.fixtures.datasets import Shelf
from worker.engine.data import SoftLabels

VECTORS = np.array([[0.25, 0.75, 0], [1, 0, 0]] * 4, np.float32)
INDICES = np.array([[2, 0], [1, -1]] * 4)
VALUES = np.array([[0.5, 0.25], [0.75, 0]] * 4, np.float32)
VOTES = np.array([[0, 1, 1], [2, -1, 2]] * 4)


def of_npz(shelf: Shelf, soft: dict[str, Any], **arrays: Any) -> SoftLabels:  # noqa: ANN401 - arrays
    np.savez(shelf.folder / "a.npz", inputs=np.zeros((8, 3)), labels=np.array([0, 1] * 4), **arrays)
    artifact = shelf.put("npz", (shelf.folder / "a.npz").read_bytes())
    found = shelf.load("npz", {"artifact": artifact, "soft_labels": soft}).train.samples.soft_labels
    assert found is not None
    return found


def of_parquet(shelf: Shelf, soft: dict[str, Any], **columns: Any) -> SoftLabels:  # noqa: ANN401 - columns
    artifact = shelf.put_table("p", {"x": np.zeros(8), "label": [0, 1] * 4, **columns}, row_group_size=3)
    read = {"files": artifact, "inputs": "x", "soft_labels": soft}
    found = shelf.load("parquet", read).train.samples.soft_labels
    assert found is not None
    return found


TOP_K = {"kind": "top_k", "indices": "i", "values": "v"}


def test_vectors_are_read_from_arrays_lists_and_columns(shelf: Shelf) -> None:
    columns = {f"p{place}": VECTORS[:, place] for place in range(3)}
    for found in (
        of_npz(shelf, {"kind": "vectors", "values": "p"}, p=VECTORS),
        of_parquet(shelf, {"kind": "vectors", "values": "p"}, p=list(VECTORS)),
        of_parquet(shelf, {"kind": "vectors", "values": list(columns)}, **columns),
    ):
        assert (found.kind, found.num_classes, len(found)) == ("vectors", 3, 8)
        assert torch.equal(found.values, torch.from_numpy(VECTORS))
        assert found.rows(torch.tensor([1, 0]), 3).tolist() == [[1, 0, 0], [0.25, 0.75, 0]]


def test_votes_are_numbers_of_classes(shelf: Shelf) -> None:
    columns = {f"r{place}": VOTES[:, place] for place in range(3)}
    for found in (
        of_npz(shelf, {"kind": "votes", "votes": "v"}, v=VOTES.astype(np.int8)),
        of_parquet(shelf, {"kind": "votes", "votes": list(columns)}, **columns),
    ):
        assert (found.kind, found.num_classes) == ("votes", 3)
        assert found.values.dtype == torch.int64
        assert found.rows(torch.tensor([1]), 3).tolist() == [[2, -1, 2]]


def test_pairs_become_vectors_whose_rest_is_shared_by_the_others(shelf: Shelf) -> None:
    for found in (of_npz(shelf, TOP_K, i=INDICES, v=VALUES), of_parquet(shelf, TOP_K, i=list(INDICES), v=list(VALUES))):
        assert (found.kind, found.num_classes) == ("top_k", 3)
        rows = found.rows(torch.tensor([0, 1]), 4)
        assert rows.tolist() == [[0.25, 0.125, 0.5, 0.125], pytest.approx([0.25 / 3, 0.75, 0.25 / 3, 0.25 / 3])]
        assert rows.sum(dim=1).tolist() == pytest.approx([1, 1])


def test_of_logits_the_smallest_stands_for_the_others(shelf: Shelf) -> None:
    found = of_npz(shelf, TOP_K | {"gives": "logits"}, i=INDICES, v=np.array([[3.0, -1], [2, 9]] * 4))
    # What stands beside the index -1 is nobody's.
    assert found.rows(torch.tensor([0, 1]), 4).tolist() == [[-1, -1, 3, -1], [2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("soft", "arrays", "failure", "told"),
    [
        ({"kind": "vectors", "values": "p"}, {"p": VECTORS[:7]}, UnusableSoftLabelsError, r"\[7, 3\]"),
        ({"kind": "vectors", "values": "p"}, {"p": VECTORS[:, 0]}, UnusableSoftLabelsError, r"\[8\]"),
        ({"kind": "vectors", "values": "p"}, {"p": np.full((8, 3), np.inf)}, UnusableSoftLabelsError, "not finite"),
        ({"kind": "vectors", "values": "p"}, {"p": np.full((8, 2), "x")}, UnusableSoftLabelsError, "are numbers"),
        ({"kind": "vectors", "values": "q"}, {"p": VECTORS}, UnknownArrayError, "no array 'q'"),
        ({"kind": "vectors", "values": ["p", "p"]}, {"p": VECTORS}, UnusableSoftLabelsError, "one array"),
        ({"kind": "votes", "votes": "v"}, {"v": VOTES + 0.5}, UnusableSoftLabelsError, "are whole"),
        ({"kind": "votes", "votes": "v"}, {"v": VOTES - 1}, UnusableSoftLabelsError, "sample 1 is below -1"),
        (TOP_K, {"i": INDICES, "v": VALUES[:, :1]}, UnusableSoftLabelsError, "as many of both"),
        (TOP_K, {"i": INDICES * 0, "v": VALUES}, UnusableSoftLabelsError, "sample 0 repeat a class"),
    ],
)
def test_soft_labels_of_another_shape_are_told(
    shelf: Shelf, soft: dict[str, Any], arrays: dict[str, Any], failure: type[StillhouseError], told: str
) -> None:
    with pytest.raises(failure, match=told) as caught:
        of_npz(shelf, soft, **arrays)
    assert str(caught.value.param).startswith("/data/train")


@pytest.mark.parametrize(
    ("column", "failure", "told"),
    [
        ([[1.0, 2.0]] * 7 + [[1.0]], UnusableSoftLabelsError, "has 1 values"),
        ([[1.0]] * 7 + [None], MissingValuesError, "row 7"), (["a"] * 8, UnusableSoftLabelsError, "holds string"),
    ],
)
def test_columns_that_are_no_soft_labels_are_told(
    shelf: Shelf, column: Any, failure: type[StillhouseError], told: str  # noqa: ANN401 - Arrow's
) -> None:
    with pytest.raises(failure, match=told) as caught:
        of_parquet(shelf, {"kind": "vectors", "values": "p"}, p=pa.array(column))
    assert caught.value.param == "/data/train/soft_labels"
