"""Columns of Arrow's as labels. Imported only where such a split is read, as `arrow` is."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillhouse.contract.failures import UnusableLabelsError
from worker.engine.data.raw import RawLabels

Array = npt.NDArray[Any]


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
    if is_number(kind):
        return _of_numbers(column)
    raise UnusableLabelsError(f"column `{names[0]}` holds {kind}, which is no label")


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers, or yes and no."""
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
    odd = next((name for name, column in zip(names, columns, strict=True) if not is_number(column.type)), None)
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
