"""Columns of Arrow's as inputs, labels and soft labels: what Parquet and Hugging Face data sets have in common.

Imported only where such a split is read: Arrow starts threads, and the forkserver that preloads the engine has one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillhouse.contract.failures import (
    EmptyDataError,
    InvalidSpecError,
    MalformedParquetError,
    MissingValuesError,
    StillhouseError,
    UnknownColumnError,
    UnusableColumnError,
    UnusableLabelsError,
    UnusableSoftLabelsError,
)
from stillhouse.contract.spec import HuggingFaceSplit, ImageFit, ParquetSplit
from worker.engine.data.decode import Decoder
from worker.engine.data.nearest import hint
from worker.engine.data.raw import RawLabels, RawSplit
from worker.engine.data.room import Array, Room
from worker.engine.data.soft_labels import read_soft_labels

MAX_ROWS = 2**31
_LISTED = 20


def read_columns(
    split: ParquetSplit | HuggingFaceSplit, batches: Iterable[pa.RecordBatch], num_rows: int, *,
    decoder: Decoder, room: Room, param: str,
) -> RawSplit:
    """A split of `num_rows` rows that come in batches. Raises what fits when a column cannot be what it is to be."""
    if num_rows == 0:
        raise EmptyDataError(f"{param} has no rows", param=param)
    kept = {name: _Kept([]) for name in [*(split.labels or []), *split.soft_columns]}
    rows = _watched(batches, num_rows, kept)
    first = next(rows)
    check_known(split.inputs, first.schema.names, f"{param}/inputs")
    types = [first.schema.field(name).type for name in split.inputs]
    whole = _chained(first, rows)
    try:
        if len(types) == 1 and is_encoded(types[0]):
            inputs, fit = decoder.decode(_encoded(whole, split.inputs[0]), num_rows), decoder.fit
        else:
            _refuse_fit(decoder, split.inputs[0])
            inputs, fit = _fill(whole, num_rows, split.inputs, room), None
        for _ in rows:
            pass
    except StillhouseError as error:
        error.param = error.param or f"{param}/inputs"
        raise
    columns = {name: pa.concat_arrays(part.arrays) for name, part in kept.items()}
    labels = _labels(split, columns, param) if split.labels is not None else None
    soft = read_soft_labels(
        split.soft_labels, lambda names: _matrix(columns, names, f"{param}/soft_labels"), num_rows,
        f"{param}/soft_labels",
    )
    return RawSplit(inputs, "uint8" if fit else inputs.dtype.name, labels, soft, image=fit)


class _Kept:
    """The parts of a column that is gathered whole."""

    def __init__(self, arrays: list[pa.Array]) -> None:
        self.arrays = arrays


def _watched(
    batches: Iterable[pa.RecordBatch], num_rows: int, kept: dict[str, _Kept]
) -> Iterator[pa.RecordBatch]:
    """The batches, while labels are gathered from them; exactly as many rows as were announced."""
    count = 0
    for batch in batches:
        count += batch.num_rows
        if count > num_rows:
            break
        check_known(kept, batch.schema.names, "")
        for name, column in kept.items():
            column.arrays.append(batch.column(name))
        if batch.num_rows:
            yield batch
    if count != num_rows:
        raise MalformedParquetError(f"the file announces {num_rows:,} rows and has another number of them")


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _refuse_fit(decoder: Decoder, name: str) -> None:
    if decoder.fit != ImageFit():
        raise InvalidSpecError(
            f"data.image is for encoded images, and column `{name}` holds numbers; leave it out", param="/data/image"
        )


def check_known(names: Iterable[str], known: list[str], param: str) -> None:
    """Raise UnknownColumnError for a name that no column has, and UnusableColumnError where two have it."""
    for name in names:
        if name not in known:
            raise UnknownColumnError(f"there is no column `{name}`; {hint(name, known)}", param=param or None)
        if known.count(name) > 1:
            raise UnusableColumnError(f"two columns are called `{name}`", param=param or None)


def is_encoded(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and is_encoded(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _encoded(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image."""
    row = 0
    for batch in batches:
        column = batch.column(name)
        paths = None
        if pa.types.is_struct(column.type):
            if column.type.get_field_index("path") >= 0:
                paths = column.field("path")
            column = column.field("bytes").filter(column.is_valid()) if column.null_count else column.field("bytes")
        if column.null_count or len(column) < batch.num_rows:
            raise MissingValuesError(
                f"column `{name}` has rows without the bytes of an image, from row {row:,} on; paths are not followed"
            )
        for place, content in enumerate(column):
            path = paths[place].as_py() if paths is not None else None
            yield f"row {row:,}" + (f" (`{path}`)" if path else ""), content.as_py()
            row += 1


def _fill(batches: Iterable[pa.RecordBatch], num_rows: int, names: list[str], room: Room) -> Array:
    """Inputs (N, ...) of one column of lists, or of columns of numbers."""
    inputs: Array | None = None
    row = 0
    for batch in batches:
        part = _numbers_of(batch, names, row)
        if inputs is None:
            inputs = room.array("the inputs", (num_rows, *part.shape[1:]), part.dtype)
        if part.shape[1:] != inputs.shape[1:]:
            raise UnusableColumnError(
                f"column `{names[0]}` has lists of shape {list(part.shape[1:])} from row {row:,} on, and of "
                f"{list(inputs.shape[1:])} before; inputs are all of one shape"
            )
        inputs[row:row + len(part)] = part
        row += len(part)
    assert inputs is not None  # noqa: S101 - there is at least one row
    return inputs


def _numbers_of(batch: pa.RecordBatch, names: list[str], row: int) -> Array:
    columns = [numbers(batch.column(name), name, row) for name in names]
    if len(columns) == 1 and columns[0].ndim > 1:
        return columns[0]
    odd = next((name for name, column in zip(names, columns, strict=True) if column.ndim > 1), None)
    if odd is not None:
        raise UnusableColumnError(f"column `{odd}` holds lists; among several columns each holds one number")
    return np.stack(columns, axis=1)


def numbers(column: pa.Array, name: str, row: int) -> Array:
    """Numbers (n,) or nested lists of them (n, ...). Raises MissingValuesError or UnusableColumnError."""
    if column.null_count:
        first = column.is_valid().to_numpy(zero_copy_only=False).argmin()
        raise MissingValuesError(f"row {row + first:,} has no value in column `{name}`")
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        length = _length(column, name, row)
        return numbers(column.flatten(), name, row).reshape(len(column), length, *_inner(column, name, length))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values: Array = column.to_numpy(zero_copy_only=False)
        return values
    raise UnusableColumnError(
        f"column `{name}` holds {kind}; inputs are encoded images, numbers, or lists of numbers of one length"
    )


def _length(column: pa.Array, name: str, row: int) -> int:
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    odd = (lengths != lengths[0]).nonzero()[0]
    if len(odd):
        raise UnusableColumnError(
            f"the list in row {row + int(odd[0]):,} of column `{name}` has {lengths[odd[0]]} values, and the one in "
            f"row {row:,} has {lengths[0]}; inputs are all of one shape"
        )
    return int(lengths[0])


def _inner(column: pa.Array, name: str, length: int) -> tuple[int, ...]:
    """Shape of what lies in the lists."""
    if length == 0:
        raise UnusableColumnError(f"column `{name}` holds empty lists")
    return numbers(column.slice(0, 1).flatten(), name, 0).shape[1:]


# How columns become labels.


def _labels(split: ParquetSplit | HuggingFaceSplit, columns: dict[str, pa.Array], param: str) -> RawLabels:
    names = split.labels or []
    try:
        return labels_of([columns[name] for name in names], names)
    except StillhouseError as error:
        error.param = f"{param}/labels"
        raise


def labels_of(columns: list[pa.Array], names: list[str]) -> RawLabels:
    """Labels of one column, or one for each of several columns. Raises UnusableLabelsError."""
    if len(columns) > 1:
        return _of_several(columns, names)
    column = columns[0]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_texts(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _of_lists(column, names[0])
    if _is_number(kind):
        return _of_numbers(column)
    raise UnusableLabelsError(f"column `{names[0]}` holds {kind}, which is no label")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _of_texts(column: pa.Array) -> RawLabels:
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return RawLabels(np.maximum(codes, 0), tuple(encoded.dictionary.to_pylist()), known=_known(codes >= 0))


def _of_numbers(column: pa.Array) -> RawLabels:
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0).to_numpy(zero_copy_only=False)
    if filled.dtype.kind == "f":
        valid &= ~np.isnan(filled)
        filled = np.where(valid, filled, 0)
    elif filled.dtype.kind == "u" and filled.dtype.itemsize == 8 and len(filled) and filled.max() >= 2**63:  # noqa: PLR2004 - uint64
        raise UnusableLabelsError(f"label {filled.max()} is no class number")
    return RawLabels(filled if filled.dtype.kind == "f" else filled.astype(np.int64), known=_known(valid))


def _of_several(columns: list[pa.Array], names: list[str]) -> RawLabels:
    odd = next((name for name, column in zip(names, columns, strict=True) if not _is_number(column.type)), None)
    if odd is not None:
        raise UnusableLabelsError(f"column `{odd}` is no column of numbers; of several label columns each is one")
    parts = [_of_numbers(column) for column in columns]
    known = np.stack([np.ones(len(part), bool) if part.known is None else part.known for part in parts], axis=1)
    partly = known.any(axis=1) != known.all(axis=1)
    if partly.any():
        raise UnusableLabelsError(f"row {int(partly.argmax()):,} has some of its labels and not all; give all or none")
    return RawLabels(np.stack([part.values for part in parts], axis=1), known=_known(known[:, 0]))


def _of_lists(column: pa.Array, name: str) -> RawLabels:
    """Rows of numbers where all lists are of one length and cannot be sets; else the labels that apply."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    present = column.drop_null()
    values = present.flatten()
    if values.null_count:
        raise UnusableLabelsError(f"a list of column `{name}` has a null in it")
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(len(present), column.type.list_size)
    else:
        lengths = present.value_lengths().to_numpy(zero_copy_only=False)
    items = labels_of([values], [name]) if len(values) else RawLabels(np.empty(0, np.int64))
    if items.values.ndim > 1 or items.offsets is not None:
        raise UnusableLabelsError(f"column `{name}` holds lists of lists, which are no labels")
    if items.names is None and _are_rows(items.values, lengths, is_fixed=pa.types.is_fixed_size_list(column.type)):
        matrix = np.zeros((len(column), int(lengths[0])), items.values.dtype)
        matrix[valid] = items.values.reshape(len(present), -1)
        return RawLabels(matrix, known=_known(valid))
    if items.values.dtype.kind == "f":
        raise UnusableLabelsError(f"the lists of column `{name}` are not all of one length")
    everywhere = np.zeros(len(column), np.int64)
    everywhere[valid] = lengths
    offsets = np.concatenate([[0], np.cumsum(everywhere)])
    return RawLabels(items.values, items.names, offsets, _known(valid))


def _are_rows(values: Array, lengths: npt.NDArray[Any], *, is_fixed: bool) -> bool:
    """Whether lists are vectors of one length rather than sets: a set repeats nothing and holds no fractions."""
    if len(lengths) == 0 or lengths[0] == 0 or not np.array_equal(lengths, np.full(len(lengths), lengths[0])):
        return False
    if is_fixed or values.dtype.kind == "f":
        return True
    ordered = np.sort(values.reshape(len(lengths), -1), axis=1)
    return bool((ordered[:, 1:] == ordered[:, :-1]).any()) and set(np.unique(values)) <= {0, 1}


def _known(valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    return None if bool(valid.all()) else valid


def _matrix(columns: dict[str, pa.Array], names: list[str], param: str) -> Array:
    """Soft labels (N, ...) of one column of lists, or of columns of numbers."""
    try:
        parts = [numbers(columns[name], name, 0) for name in names]
    except UnusableColumnError as error:
        raise UnusableSoftLabelsError(error.message, param=param) from error
    except MissingValuesError as error:
        error.param = param
        raise
    return parts[0] if len(parts) == 1 and parts[0].ndim > 1 else np.stack(parts, axis=1)
