"""Columns of Arrow's as inputs, labels and soft labels: what Parquet and Hugging Face data sets have in common.

Imported only where such a split is read: Arrow starts threads, and the forkserver that preloads the engine has one.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from stillhouse.contract.failures import (
    EmptyDataError,
    InvalidSpecError,
    MalformedParquetError,
    MissingValuesError,
    StillhouseError,
    UnknownColumnError,
    UnusableColumnError,
    UnusableSoftLabelsError,
)
from stillhouse.contract.spec import HuggingFaceSplit, ImageFit, ParquetSplit
from worker.engine.data.column_labels import is_number, labels_of
from worker.engine.data.decode import Decoder
from worker.engine.data.nearest import hint
from worker.engine.data.raw import RawLabels, RawSplit
from worker.engine.data.room import Array, Room
from worker.engine.data.soft_labels import read_soft_labels

MAX_ROWS = 2**31


def read_columns(
    split: ParquetSplit | HuggingFaceSplit, batches: Iterable[pa.RecordBatch], num_rows: int, *,
    decoder: Decoder, room: Room, param: str,
) -> RawSplit:
    """A split of `num_rows` rows that come in batches. Raises what fits when a column cannot be what it is to be."""
    if num_rows == 0:
        raise EmptyDataError(f"{param} has no rows", param=param)
    kept: dict[str, list[pa.Array]] = {name: [] for name in [*(split.labels or []), *split.soft_columns]}
    rows = _watched(batches, num_rows, kept)
    first = next(rows)
    check_known(split.inputs, first.schema.names, f"{param}/inputs")
    types = [first.schema.field(name).type for name in split.inputs]
    whole = itertools.chain([first], rows)
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
    columns = {name: pa.concat_arrays(parts) for name, parts in kept.items()}
    labels = _labels(split, columns, param) if split.labels is not None else None
    soft = read_soft_labels(
        split.soft_labels, lambda names: _matrix(columns, names, f"{param}/soft_labels"), num_rows,
        f"{param}/soft_labels",
    )
    return RawSplit(inputs, "uint8" if fit else inputs.dtype.name, labels, soft, image=fit)


def _watched(
    batches: Iterable[pa.RecordBatch], num_rows: int, kept: dict[str, list[pa.Array]]
) -> Iterator[pa.RecordBatch]:
    """The batches, while labels are gathered from them; exactly as many rows as were announced."""
    count = 0
    for batch in batches:
        count += batch.num_rows
        if count > num_rows:
            break
        check_known(kept, batch.schema.names, "")
        for name, parts in kept.items():
            parts.append(batch.column(name))
        if batch.num_rows:
            yield batch
    if count != num_rows:
        raise MalformedParquetError(f"the file announces {num_rows:,} rows and has another number of them")


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
    if is_number(kind):
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


def _labels(split: ParquetSplit | HuggingFaceSplit, columns: dict[str, pa.Array], param: str) -> RawLabels:
    names = split.labels or []
    try:
        return labels_of([columns[name] for name in names], names)
    except StillhouseError as error:
        error.param = f"{param}/labels"
        raise


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
