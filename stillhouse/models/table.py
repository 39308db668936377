"""From rows of named cells to rows of numbers: numbers as they are, categories one-hot."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Row = Mapping[str, object]

_STRICT: Final = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NumericColumn(BaseModel):
    """A column of numbers: one input. Its mean and deviation stand in the normalisation."""

    model_config = _STRICT

    kind: Literal["numeric"] = "numeric"
    name: str
    fill: float | None = Field(default=None, description="What a missing value becomes; null refuses it.")

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that the column becomes."""
        return [self.name]


class CategoricalColumn(BaseModel):
    """A column of categories: one input for each, 1 for the row's own and 0 for the others."""

    model_config = _STRICT

    kind: Literal["categorical"] = "categorical"
    name: str
    categories: tuple[str, ...] = Field(description="Those of the training split, sorted. Others become all zeros.")
    may_be_missing: bool = Field(default=False, description="Whether a missing value becomes all zeros too.")

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that the column becomes."""
        return [f"{self.name}={category}" for category in self.categories]

    @cached_property
    def places(self) -> dict[str, int]:
        """Which of the inputs a category sets to 1."""
        return {category: place for place, category in enumerate(self.categories)}


Column = Annotated[NumericColumn | CategoricalColumn, Field(discriminator="kind")]


class Table(BaseModel):
    """The columns that a model reads, and how missing values are written."""

    model_config = _STRICT

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    missing_values: tuple[str, ...] = ()
    delimiter: str = ","

    @cached_property
    def inputs(self) -> list[str]:
        """Name of each input of the model."""
        return [name for column in self.columns for name in column.inputs]

    @cached_property
    def is_number(self) -> list[bool]:
        """Whether each input is a number, to be standardised, rather than a 0 or 1."""
        return [column.kind == "numeric" for column in self.columns for _ in column.inputs]

    def encode(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """Inputs (N, columns) of rows. Raises ValueError that names the row and the column of what cannot be read."""
        encoded = np.zeros((len(rows), len(self.inputs)))
        place = 0
        for column in self.columns:
            width = len(column.inputs)
            block = encoded[:, place:place + width]
            for number, row in enumerate(rows):
                self._encode_cell(column, row, number, block)
            place += width
        return encoded

    def _encode_cell(self, column: Column, row: Row, number: int, block: npt.NDArray[np.float64]) -> None:
        value = self._cell(column, row, number)
        if isinstance(column, NumericColumn):
            block[number, 0] = self._number(column, value, number)
        elif value is None:
            if not column.may_be_missing:
                raise ValueError(f"row {number} has no value in column {column.name!r}")
        elif value in column.places:
            block[number, column.places[value]] = 1.0

    def _cell(self, column: Column, row: Row, number: int) -> str | None:
        """What stands there, as text; None where a value is missing."""
        if column.name not in row:
            near = get_close_matches(column.name, [str(name) for name in row], n=1, cutoff=0.5)
            hint = f"; it has {near[0]!r}" if near else ""
            raise ValueError(f"row {number} has no column {column.name!r}{hint}")
        value = row[column.name]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        text = str(value).strip()
        return None if text in self.missing_values else text

    def _number(self, column: NumericColumn, text: str | None, number: int) -> float:
        if text is None:
            if column.fill is None:
                raise ValueError(f"row {number} has no value in column {column.name!r}")
            return column.fill
        try:
            value = float(text.replace("_", "?"))  # Python's own digit groups are nobody else's
        except ValueError as error:
            raise ValueError(f"row {number} has {text!r} in column {column.name!r}, which is no number") from error
        if not math.isfinite(value):
            raise ValueError(f"row {number} has {text!r} in column {column.name!r}, which is not finite")
        return value
