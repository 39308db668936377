from typing import Any

import numpy as np
import pytest

from stillhouse.models.table import CategoricalColumn, NumericColumn, Table

TABLE = Table(
    columns=(
        NumericColumn(name="age", fill=30.0), CategoricalColumn(name="city", categories=("Oslo", "Rome")),
        NumericColumn(name="height"), CategoricalColumn(name="zip", categories=("01",), may_be_missing=True),
    ),
    missing_values=("", "NA"),
)
ROW: dict[str, Any] = {"age": 4, "city": "Rome", "height": "1.5", "zip": "01"}


def test_inputs_are_named_and_told_apart() -> None:
    assert TABLE.inputs == ["age", "city=Oslo", "city=Rome", "height", "zip=01"]
    assert TABLE.is_number == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [4, 0, 1, 1.5, 1]),
        ({"age": " -2e1 ", "city": " Oslo "}, [-20, 1, 0, 1.5, 1]),
        ({"age": None, "zip": "NA"}, [30, 0, 1, 1.5, 0]),
        ({"age": float("nan"), "city": "Paris", "zip": 1}, [30, 0, 0, 1.5, 0]),
        ({"age": np.float32(0.5), "height": np.int64(3), "more": "left out"}, [0.5, 0, 1, 3, 1]),
        ({"age": True}, None),
    ],
)
def test_a_row_becomes_numbers(changed: dict[str, Any], expected: list[float] | None) -> None:
    rows = [ROW | changed, ROW]
    if expected is None:
        with pytest.raises(ValueError, match="row 0 has 'True' in column 'age', which is no number"):
            TABLE.encode(rows)
    else:
        assert TABLE.encode(rows).tolist() == [expected, [4, 0, 1, 1.5, 1]]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"Age": 4, "city": "Rome"}, "row 0 has no column 'age'; it has 'Age'"),
        (ROW | {"height": ""}, "row 0 has no value in column 'height'"),
        (ROW | {"city": None}, "row 0 has no value in column 'city'"),
        (ROW | {"height": "1_000"}, "'1_000' in column 'height', which is no number"),
        (ROW | {"height": "inf"}, "not finite"),
        (ROW | {"height": float("inf")}, "not finite"),
        (ROW | {"height": "tall"}, "'tall'"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_row_and_column(row: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TABLE.encode([row])


def test_no_rows_are_no_rows() -> None:
    assert TABLE.encode([]).shape == (0, 5)


def test_json_gives_it_back() -> None:
    assert Table.model_validate_json(TABLE.model_dump_json(exclude_none=True)) == TABLE
