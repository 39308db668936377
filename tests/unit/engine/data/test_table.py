import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.contract.failures import (
    EmptyDataError,
    MalformedCsvError,
    MissingValuesError,
    StillhouseError,
    UnknownColumnError,
    UnusableColumnError,
    UnusableLabelsError,
)
from stillhouse.models.table import CategoricalColumn, NumericColumn
from tests.fixtures.datasets import Shelf
from worker.engine.data import load_dataset

ROWS = "age,city,id,label\n20,Rome,a,yes\n30, Oslo ,b,no\n40,Rome,c,yes\n50,Paris,d,no\n60,Oslo,e,yes\n70,Rome,f,no\n"


def load(shelf: Shelf, text: str | bytes = ROWS, *, labels: Any = "label", **data: Any) -> Any:  # noqa: ANN401 - JSON
    artifact = shelf.put("rows", text.encode() if isinstance(text, str) else text)
    return shelf.load("csv", {"artifact": artifact, "labels": labels}, **({"ignore": ["id"]} | data))


def test_numbers_stay_and_categories_become_one_hot(shelf: Shelf) -> None:
    dataset = load(shelf)
    assert dataset.preprocessing.table.inputs == ["age", "city=Oslo", "city=Paris", "city=Rome"]
    assert dataset.train.samples.raw.tolist() == [
        [20, 0, 0, 1], [30, 1, 0, 0], [40, 0, 0, 1], [50, 0, 1, 0], [60, 1, 0, 0], [70, 0, 0, 1],
    ]
    assert dataset.label_names == ["no", "yes"]
    assert dataset.train.samples.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.is_table


def test_numbers_alone_are_standardised_on_the_training_samples(shelf: Shelf) -> None:
    dataset = load(shelf)
    ages = dataset.train.samples.raw[dataset.train.ids, 0].numpy()
    normalization = dataset.preprocessing.normalization
    assert len(ages) < 6
    assert normalization.mean == pytest.approx([ages.mean(), 0, 0, 0])
    assert normalization.std == pytest.approx([ages.std(), 1, 1, 1])


def test_kinds_can_be_given(shelf: Shelf) -> None:
    text = "zip,count,label\n01,1,0\n02,2,1\n1,1,0\n02,2,1\n"
    inferred = load(shelf, text, ignore=[]).preprocessing.table
    assert [column.kind for column in inferred.columns] == ["numeric", "numeric"]
    given = load(shelf, text, ignore=[], categorical=["zip"]).preprocessing.table.columns
    assert given == (CategoricalColumn(name="zip", categories=("01", "02", "1")), NumericColumn(name="count"))


@pytest.mark.parametrize(("how", "fill"), [("mean", 30.0), ("median", 20.0), ("zero", 0.0)])
def test_missing_values_become_what_is_declared(shelf: Shelf, how: str, fill: float) -> None:
    text = "age,city,label\n10,Rome,0\n20,,1\n,Oslo,0\n60,Rome,1\nNA,Oslo,0\n"
    train, test = shelf.put("rows", text.encode()), shelf.put("test", b"city,age,label\nNone,,1\nRome,5,0\n")
    dataset = shelf.load("csv", {"artifact": train}, test={"artifact": test}, missing=how)
    assert dataset.test is not None
    assert dataset.train.samples.raw.tolist() == [[10, 0, 1], [20, 0, 0], [fill, 1, 0], [60, 0, 1], [fill, 1, 0]]
    # What is put in, is the training split's own.
    assert dataset.test.samples.raw.tolist() == [[fill, 0, 0], [5, 0, 1]]
    table = dataset.preprocessing.table
    assert table is not None
    assert table.encode([{"age": None, "city": None}]).tolist() == [[fill, 0, 0]]


def test_a_category_that_was_never_seen_is_all_zeros(shelf: Shelf) -> None:
    train, test = shelf.put("rows", ROWS.encode()), shelf.put("test", b"city,age,label\nBern,1,yes\n")
    dataset = shelf.load("csv", {"artifact": train}, test={"artifact": test}, ignore=["id"])
    assert dataset.test is not None
    assert dataset.test.samples.raw.tolist() == [[1, 0, 0, 0]]


def test_the_trainer_and_whoever_uses_the_model_read_a_file_alike(shelf: Shelf, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    numbers = [f"{value:{form}}" for value, form in zip(
        random.normal(0, 1e3, 200), ["g", ".3f", "e", ".0f", "+.2f"] * 40, strict=True)]
    texts = random.choice(["a", "b b", 'c "quoted"', "d,e", "f\ng", " ä ", ""], 200)
    path = tmp_path / "all.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "the text", "label"])
        writer.writerows(zip(numbers, texts, ["0", "1"] * 100, strict=True))
    dataset = load(shelf, path.read_bytes(), ignore=[], missing="zero")
    with path.open(newline="") as file:
        rows: list[Any] = list(csv.DictReader(file))
    assert dataset.input_shape == (7,)
    assert torch.equal(dataset.preprocessing.arrange(rows), dataset.train.samples.arranged)
    assert torch.equal(dataset.preprocessing.arrange(dataset.train.samples.raw), dataset.train.samples.arranged)


@pytest.mark.parametrize(
    ("labels", "data", "expected", "names"),
    [
        (["1", "0", "2", "1"], {}, [1, 0, 2, 1], None),
        (["1.0", "0", "2", "1"], {}, [1, 0, 2, 1], None),
        (["1", "2", "1", "2"], {"label_names": ["1", "2"]}, [0, 1, 0, 1], ["1", "2"]),
        (["b", "a", "b", "a"], {"label_names": ["b", "c", "a"]}, [0, 2, 0, 2], ["b", "c", "a"]),
    ],
)
def test_labels_are_numbers_or_names(
    shelf: Shelf, labels: list[str], data: dict[str, Any], expected: list[int], names: list[str] | None
) -> None:
    text = "x,label\n" + "".join(f"1,{label}\n" for label in labels * 3)
    dataset = load(shelf, text, ignore=[], **data)
    assert dataset.train.samples.labels.tolist() == expected * 3
    assert dataset.label_names == names


def test_an_empty_label_is_no_label(shelf: Shelf) -> None:
    samples = load(shelf, "x,label\n1,a\n2,\n3,b\n4,a\n5,NA\n", ignore=[]).train.samples
    assert samples.mask.tolist() == [True, False, True, True, False]
    assert samples.labels.tolist() == [0, 0, 1, 0, 0]


def test_soft_labels_are_no_inputs(shelf: Shelf) -> None:
    text = "x,p0,p1,label\n1,.25,.75,1\n2,1,0,0\n3,0,1,1\n4,.5,.5,0\n"
    artifact = shelf.put("rows", text.encode())
    dataset = shelf.load(
        "csv", {"artifact": artifact, "soft_labels": {"kind": "vectors", "values": ["p0", "p1"]}}
    )
    assert dataset.input_shape == (1,)
    soft = dataset.train.samples.soft_labels
    assert soft is not None
    assert soft.values.tolist() == [[0.25, 0.75], [1, 0], [0, 1], [0.5, 0.5]]


def test_another_delimiter_and_a_byte_order_mark_are_read(shelf: Shelf) -> None:
    dataset = load(shelf, "\ufeffage;label\n1,5;a\n2,5;b\n1,5;a\n", ignore=[], delimiter=";")
    assert dataset.preprocessing.table.inputs == ["age=1,5", "age=2,5"]
    assert dataset.preprocessing.table.delimiter == ";"


REFUSED: list[tuple[str | bytes, dict[str, Any], type[StillhouseError], str, str]] = [
    ("a,label\n1,0\n2,1\n3,0,7\n", {}, MalformedCsvError, "line 4 has 3 cells, and the header .* 2", "/data/train"),
    ("a,label\n1,0\n2\n", {}, MalformedCsvError, "line 3 has 1 cells", "/data/train"),
    (b"a,label\n1,0\n\xff,1\n", {}, MalformedCsvError, "invalid UTF8", "/data/train"),
    (b"\xff,label\n1,0\n", {}, MalformedCsvError, "header row is not UTF-8", "/data/train"),
    ("a,label\n", {}, EmptyDataError, "no other", "/data/train"),
    ("a,a,label\n1,2,0\n", {}, UnusableColumnError, "two columns are called `a`", "/data/train"),
    ("a,Label\n1,0\n", {}, UnknownColumnError, "did you mean `Label`", "/data/train/labels"),
    ("a,label\n1,0\n", {"ignore": ["b"]}, UnknownColumnError, "`b`", "/data/ignore"),
    ("a,label\n1,0\n", {"numeric": ["b"]}, UnknownColumnError, "`b`", "/data/numeric"),
    ("label\n0\n1\n", {}, UnusableColumnError, "no column is left", "/data/train"),
    ("a,b,label\n1,,0\n2,,1\n", {}, UnusableColumnError, "`b` has no value at all", "/data/train"),
    ("a,label\n1,0\nx,1\n", {"numeric": ["a"]}, UnusableColumnError, "row 1 has `x`", "/data/numeric"),
    ("a,label\n1,0\ninf,1\n", {"numeric": ["a"]}, UnusableColumnError, "row 1 has `inf`", "/data/numeric"),
    ("a,label\n1,0\n,1\n", {}, MissingValuesError, "row 1 has no value in column `a`; set data.missing", "/data/train"),
    ("a,label\nx,0\n?,1\n", {"missing_values": ["?"]}, MissingValuesError, "row 1 has no value", "/data/train"),
    ("a,label\n" + "".join(f"id{row},{row % 2}\n" for row in range(300)), {}, UnusableColumnError,
     "more than 256 different texts", "/data/train"),
    ("a,label\n1,0.5\n2,1.5\n", {}, UnusableLabelsError, "label 0.5 of sample 0", "/data/train"),
    ("a,label\n1,\n2,\n", {}, UnusableLabelsError, "no sample has a label", "/data/train"),
]


@pytest.mark.parametrize(("text", "data", "failure", "told", "param"), REFUSED)
def test_what_cannot_be_read_is_told_with_its_place(
    shelf: Shelf, text: str | bytes, data: dict[str, Any], failure: type[StillhouseError], told: str, param: str
) -> None:
    with pytest.raises(failure, match=told) as caught:
        load(shelf, text, **({"ignore": []} | data))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("test", "failure", "told"),
    [
        (b"age,label\n1,yes\n", UnknownColumnError, "no column `city`"),
        (b"age,city,label\nold,Rome,yes\n", UnusableColumnError, "`age` is numeric, and row 0 has `old`"),
        (b"age,city,label\n1,,yes\n", MissingValuesError, "row 0 has no value in column `city`"),
        (b"age,city,label\n,Rome,yes\n", MissingValuesError, "row 0 has no value in column `age`"),
    ],
)
def test_another_split_has_the_columns_of_the_training_split(
    shelf: Shelf, test: bytes, failure: type[StillhouseError], told: str
) -> None:
    train, other = shelf.put("rows", ROWS.encode()), shelf.put("test", test)
    with pytest.raises(failure, match=told) as caught:
        shelf.load("csv", {"artifact": train}, test={"artifact": other}, ignore=["id"])
    assert str(caught.value.param).startswith("/data/test")


def test_rows_beyond_one_block_and_beyond_memory_are_read_alike(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.data.table.BLOCK_BYTES", 64)
    names = ('"a\nb, and more of it"', "b")
    text = "x,c,label\n" + "".join(f"{row}.5,{names[row % 2]},{row % 3}\n" for row in range(200))
    spec = shelf.spec("csv", {"artifact": shelf.put("rows", text.encode())})
    in_memory, mapped = (load_dataset(spec, shelf.inputs, shelf.folder, budget=budget) for budget in (10**6, 100))
    assert (in_memory.train.samples.is_mapped, mapped.train.samples.is_mapped) == (False, True)
    assert in_memory.train.samples.raw.tolist() == [[row + 0.5, 1 - row % 2, row % 2] for row in range(200)]
    assert torch.equal(mapped.train.samples.raw, in_memory.train.samples.raw)
    assert mapped.preprocessing == in_memory.preprocessing
    broken = shelf.put("broken", (text.replace("a\nb", "a") + "1,a\n").encode())
    with pytest.raises(MalformedCsvError, match="line 202 has 2 cells"):
        shelf.load("csv", {"artifact": broken})
