"""Tables in CSV files: columns become numbers and categories. Imported only where one is read, as `arrow` is.

All cells are read as text, so that the trainer and whoever uses the model later agree on what a cell says.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute
from pyarrow import csv as arrow_csv

from stillhouse.contract.failures import (
    EmptyDataError,
    MalformedCsvError,
    MissingValuesError,
    StillhouseError,
    UnusableColumnError,
)
from stillhouse.contract.spec import CsvData, CsvSplit
from stillhouse.models.table import CategoricalColumn, Column, NumericColumn, Table
from worker.engine.data.arrow import check_known
from worker.engine.data.column_labels import labels_of
from worker.engine.data.raw import RawLabels, RawSplit
from worker.engine.data.room import Array, Room
from worker.engine.data.soft_labels import read_soft_labels

BLOCK_BYTES: Final = 4 * 1024**2
MAX_HEADER: Final = 1024**2


@dataclass
class _Seen:
    """What the training split shows of a column."""

    is_number: bool = True
    categories: set[str] = field(default_factory=set)
    has_missing: bool = False
    strange: tuple[int, str] | None = None  # row and text of the first value that is no number


class TableReader:
    """Reads every split alike: the training split, which comes first, settles kinds, categories and fills."""

    def __init__(self, data: CsvData, room: Room) -> None:
        self._data, self._room = data, room
        self._table: Table | None = None

    def read(self, split: CsvSplit, path: Path, param: str) -> RawSplit:
        """Inputs (N, columns) as float64, not standardised yet. Raises what fits when a cell or column is unusable."""
        header = self._header(path, param)
        check_known(split.labels or [], header, f"{param}/labels")
        check_known(split.soft_columns, header, f"{param}/soft_labels")
        kinds, num_rows = self._survey(split, path, header, param)
        if num_rows == 0:
            raise EmptyDataError(f"{param} has a header row and no other", param=param)
        table = self._table or self._settle(kinds, param)
        kept = [*(split.labels or []), *split.soft_columns]
        inputs = self._room.array("the table", (num_rows, len(table.inputs)), "float64")
        texts = self._encode(path, table, kept, inputs, param)
        self._table = table = self._fill(table, inputs, is_first=self._table is None, param=param)
        soft = read_soft_labels(
            split.soft_labels, lambda names: _matrix(texts, names, f"{param}/soft_labels"), num_rows,
            f"{param}/soft_labels",
        )
        return RawSplit(inputs, "float64", self._labels(split, texts, param), soft, table=table)

    def _header(self, path: Path, param: str) -> list[str]:
        with path.open("rb") as file:
            line = file.readline(MAX_HEADER)
        try:
            names = next(csv.reader([line.decode("utf-8-sig")], delimiter=self._data.delimiter), [])
        except UnicodeDecodeError as error:
            raise MalformedCsvError("the header row is not UTF-8; save the file as UTF-8", param=param) from error
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None or not names:
            raise UnusableColumnError(f"two columns are called `{repeated}`; rename one of them", param=param)
        return names

    def _survey(
        self, split: CsvSplit, path: Path, header: Sequence[str], param: str
    ) -> tuple[dict[str, _Seen], int]:
        """What each column holds, and the number of rows. Later splits have the columns of the first."""
        if self._table is not None:
            wanted = [column.name for column in self._table.columns]
            check_known(wanted, list(header), param)
            return {}, sum(batch.num_rows for batch in self._batches(path, wanted[:1], param))
        for name in ("numeric", "categorical", "ignore"):
            check_known(getattr(self._data, name), list(header), f"/data/{name}")
        others = {*self._data.ignore, *(split.labels or []), *split.soft_columns}
        seen = {name: _Seen() for name in header if name not in others}
        if not seen:
            raise UnusableColumnError("no column is left for the inputs", param=param)
        num_rows = 0
        for batch in self._batches(path, list(seen), param):
            for name, column in seen.items():
                self._look(column, batch.column(name), num_rows)
            num_rows += batch.num_rows
        return seen, num_rows

    def _look(self, seen: _Seen, cells: pa.Array, row: int) -> None:
        texts = self._present(cells)
        present = texts.drop_null()
        seen.has_missing |= len(present) < len(texts)
        if seen.is_number and (strange := _first_strange(texts)) is not None:
            seen.is_number, seen.strange = False, (row + strange, texts[strange].as_py())
        # A column that is numeric may have any number of values; how many, matters only where it is not.
        if len(seen.categories) <= self._data.max_categories:
            seen.categories.update(compute.unique(present).slice(0, self._data.max_categories + 1).to_pylist())

    def _settle(self, seen: dict[str, _Seen], param: str) -> Table:
        columns = tuple(self._column(name, column, param) for name, column in seen.items())
        return Table(
            columns=columns, missing_values=tuple(self._data.missing_values), delimiter=self._data.delimiter
        )

    def _column(self, name: str, seen: _Seen, param: str) -> Column:
        if not seen.categories:
            raise UnusableColumnError(f"column `{name}` has no value at all; name it in data.ignore", param=param)
        if name in self._data.numeric and seen.strange is not None:
            row, text = seen.strange
            raise UnusableColumnError(
                f"column `{name}` is to be numeric, and row {row:,} has `{text[:100]}`", param="/data/numeric"
            )
        if seen.is_number and name not in self._data.categorical:
            return NumericColumn(name=name)
        if len(seen.categories) > self._data.max_categories:
            raise UnusableColumnError(
                f"column `{name}` has more than {self._data.max_categories} different texts, so it looks like an "
                "identifier or free text; name it in data.ignore, or raise data.max_categories", param=param,
            )
        return CategoricalColumn(
            name=name, categories=tuple(sorted(seen.categories)), may_be_missing=self._data.missing != "refuse"
        )

    def _encode(
        self, path: Path, table: Table, kept: Sequence[str], inputs: Array, param: str
    ) -> dict[str, pa.Array]:
        """Fill the inputs, with NaN where a number is missing; gives the texts of the columns that are kept."""
        parts: dict[str, list[pa.Array]] = {name: [] for name in kept}
        row = 0
        wanted = list(dict.fromkeys([*(column.name for column in table.columns), *kept]))
        for batch in self._batches(path, wanted, param):
            for name, part in parts.items():
                part.append(self._present(batch.column(name)))
            block, place = inputs[row:row + batch.num_rows], 0
            for column in table.columns:
                width = len(column.inputs)
                block[:, place:place + width] = self._cells(column, batch.column(column.name), row, param)
                place += width
            row += batch.num_rows
        return {name: pa.concat_arrays(part) for name, part in parts.items()}

    def _cells(self, column: Column, cells: pa.Array, row: int, param: str) -> Array:
        texts = self._present(cells)
        if isinstance(column, NumericColumn):
            if (strange := _first_strange(texts)) is not None:
                raise UnusableColumnError(
                    f"column `{column.name}` is numeric, and row {row + strange:,} has "
                    f"`{texts[strange].as_py()[:100]}`", param=param,
                )
            return _floats(texts)[:, None]
        if texts.null_count and not column.may_be_missing:
            self._refuse_missing(column.name, row + _first_null(texts), param)
        places = compute.index_in(texts, pa.array(column.categories, texts.type)).fill_null(-1)
        numbers = places.to_numpy(zero_copy_only=False)
        one_hot: Array = (numbers[:, None] == np.arange(len(column.categories))).astype(np.float64)
        return one_hot

    def _fill(self, table: Table, inputs: Array, *, is_first: bool, param: str) -> Table:
        """Put a number where one is missing, and the number into the table; the first split's serves all."""
        columns, place = [], 0
        for column in table.columns:
            if isinstance(column, NumericColumn):
                column = self._filled(column, inputs[:, place], is_first=is_first, param=param)  # noqa: PLW2901 - it stays itself
            columns.append(column)
            place += len(column.inputs)
        return table.model_copy(update={"columns": tuple(columns)}) if is_first else table

    def _filled(self, column: NumericColumn, values: Array, *, is_first: bool, param: str) -> NumericColumn:
        missing = np.isnan(values)
        if self._data.missing == "refuse":
            if missing.any():
                self._refuse_missing(column.name, int(missing.argmax()), param)
            return column
        fill = _FILLS[self._data.missing](values[~missing]) if is_first else column.fill
        values[missing] = fill
        return column.model_copy(update={"fill": fill})

    def _refuse_missing(self, name: str, row: int, param: str) -> None:
        raise MissingValuesError(
            f"row {row:,} has no value in column `{name}`; set data.missing to mean, median or zero, or name the "
            "column in data.ignore", param=param,
        )

    def _labels(self, split: CsvSplit, texts: dict[str, pa.Array], param: str) -> RawLabels | None:
        if split.labels is None:
            return None
        names = set(self._data.label_names or [])
        try:
            return labels_of([_typed(texts[name], names) for name in split.labels], split.labels)
        except StillhouseError as error:
            error.param = f"{param}/labels"
            raise

    def _present(self, cells: pa.Array) -> pa.Array:
        """The texts without spaces around them, null where one stands for no value."""
        texts = compute.utf8_trim_whitespace(cells)
        missing = compute.is_in(texts, pa.array(self._data.missing_values, texts.type))
        return compute.if_else(missing, pa.scalar(None, texts.type), texts)

    def _batches(self, path: Path, columns: Sequence[str], param: str) -> Iterator[pa.RecordBatch]:
        ragged: list[Any] = []

        def refuse(row: Any) -> str:  # noqa: ANN401 - Arrow's own
            ragged.append(row)
            return "error"

        with _told(ragged, param):
            reader = arrow_csv.open_csv(
                path,
                arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                arrow_csv.ParseOptions(
                    delimiter=self._data.delimiter, newlines_in_values=True, invalid_row_handler=refuse
                ),
                arrow_csv.ConvertOptions(
                    include_columns=list(columns), column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=False,
                ),
            )
        while True:
            with _told(ragged, param):
                batch = _next(reader)
            if batch is None:
                return
            yield batch


_FILLS: Final[dict[str, Any]] = {
    "mean": lambda values: float(values.mean()), "median": lambda values: float(np.median(values)),
    "zero": lambda _: 0.0,
}


def _next(reader: arrow_csv.CSVStreamingReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


@contextmanager
def _told(ragged: list[Any], param: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if ragged:
            raise MalformedCsvError(
                f"line {ragged[0].number:,} has {ragged[0].actual_columns} cells, and the header row has "
                f"{ragged[0].expected_columns}; put cells that hold the delimiter in quotes", param=param,
            ) from error
        raise MalformedCsvError(f"the CSV file cannot be read: {error}", param=param) from error


def _first_null(texts: pa.Array) -> int:
    return int(texts.is_valid().to_numpy(zero_copy_only=False).argmin())


def _floats(texts: pa.Array) -> npt.NDArray[np.float64]:
    """Numbers, NaN where none stands; the texts are known to be numbers."""
    values: npt.NDArray[np.float64] = compute.cast(texts, pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _first_strange(texts: pa.Array) -> int | None:
    """Place of the first text that is no finite number; None where all are."""
    try:
        values = _floats(texts)
    except pa.ArrowInvalid:
        return next(place for place, text in enumerate(texts.to_pylist()) if text is not None and not _is_number(text))
    strange = (~np.isfinite(values) & texts.is_valid().to_numpy(zero_copy_only=False)).nonzero()[0]
    return int(strange[0]) if len(strange) else None


def _is_number(text: str) -> bool:
    try:
        return bool(compute.is_finite(compute.cast(pa.scalar(text), pa.float64())).as_py())
    except pa.ArrowInvalid:
        return False


def _typed(texts: pa.Array, names: set[str]) -> pa.Array:
    """Whole numbers, else numbers, else texts; texts too where all are names of classes."""
    if names and set(compute.unique(texts.drop_null()).to_pylist()) <= names:
        return texts
    for kind in (pa.int64(), pa.float64()):
        try:
            return compute.cast(texts, kind)
        except pa.ArrowInvalid:
            pass
    return texts


def _matrix(texts: dict[str, pa.Array], names: Sequence[str], param: str) -> Array:
    """Soft labels (N, ...) of columns of numbers."""
    for name in names:
        row = _first_null(texts[name]) if texts[name].null_count else _first_strange(texts[name])
        if row is not None:
            raise MissingValuesError(
                f"row {row:,} of column `{name}` has no number, and it is a soft label", param=param
            )
    return np.stack([_floats(texts[name]) for name in names], axis=1)
