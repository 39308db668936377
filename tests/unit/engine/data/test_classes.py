import numpy as np
import pytest

from stillhouse.contract.events import Noted
from tests.fixtures.datasets import Shelf
from worker.engine.data import Dataset, count_classes, describe_classes

NAMES = ["a", "b", "c"]


def dataset(shelf: Shelf, train: list[int], test: list[int]) -> Dataset:
    splits = {}
    for name, labels in (("train", train), ("test", test)):
        np.savez(shelf.folder / "a.npz", inputs=np.zeros((len(labels), 2)), labels=np.array(labels))
        splits[name] = {"artifact": shelf.put(name, (shelf.folder / "a.npz").read_bytes())}
    validation = splits["train"]
    return shelf.load("npz", splits["train"], test=splits["test"], validation=validation, missing_label=-1)


def notes(found: Dataset) -> list[tuple[str, str, str]]:
    told: list[Noted] = list(describe_classes(found, NAMES))
    return [(note.level, note.code, note.message) for note in told]


def test_classes_are_counted_by_split(shelf: Shelf) -> None:
    counted = count_classes(dataset(shelf, [0] * 5 + [1] * 3 + [2] + [-1] * 4, [0, 0, 2]), 3)
    assert [(split.split, split.counts.tolist(), split.num_unlabelled) for split in counted] == [
        ("train", [5, 3, 1], 4), ("validation", [5, 3, 1], 4), ("test", [2, 0, 1], 0),
    ]
    assert counted[0].imbalance == 5
    assert counted[2].missing == [1]


def test_nothing_is_told_of_labels_that_are_well_spread(shelf: Shelf) -> None:
    assert notes(dataset(shelf, [0, 1, 2] * 5, [0, 1, 2])) == []


def test_imbalance_missing_classes_and_missing_labels_are_told(shelf: Shelf) -> None:
    told = notes(dataset(shelf, [0] * 20 + [1] * 2 + [2] * 2 + [-1], [1, -1]))
    assert [(level, code) for level, code, _ in told] == [
        ("info", "unlabelled_samples"), ("warning", "classes_unbalanced"), ("info", "unlabelled_samples"),
        ("info", "unlabelled_samples"), ("warning", "classes_missing"),
    ]
    assert told[1][2].startswith("a has 20 training samples and b has 2")
    assert told[4][2] == "No sample of test is labelled a, c."


@pytest.mark.parametrize(("largest", "is_told"), [(9, False), (10, True)])
def test_ten_to_one_is_unbalanced(shelf: Shelf, largest: int, is_told: bool) -> None:
    codes = [code for _, code, _ in notes(dataset(shelf, [0] * largest + [1, 2], [0, 1, 2]))]
    assert ("classes_unbalanced" in codes) == is_told


def test_balanced_sampling_is_told_which_samples_have_no_label(shelf: Shelf) -> None:
    found = dataset(shelf, [0, -1, 1, 2, -1, 0], [2, 1])
    assert found.train.classes is not None
    assert found.train.classes.tolist() == [0, -1, 1, 2, -1, 0]
    assert found.test is not None
    assert found.test.classes is not None
    assert found.test.classes.tolist() == [2, 1]
    known = found.train.known_labels()
    assert known is not None
    assert known.tolist() == [0, 1, 2, 0]
