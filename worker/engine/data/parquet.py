"""Parquet files. Imported only where one is read, as `arrow` is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from stillhouse.contract.failures import MalformedParquetError
from stillhouse.contract.spec import ParquetSplit
from worker.engine.data.arrow import MAX_ROWS, check_known, read_columns
from worker.engine.data.decode import Decoder
from worker.engine.data.features import features_of, with_class_names
from worker.engine.data.raw import RawSplit
from worker.engine.data.room import Room

# Rows that are in memory at once, encoded.
BATCH_ROWS = 256
_THRIFT_STRING = 64 * 1024**2
_THRIFT_CONTAINER = 4_000_000


def read_parquet(
    split: ParquetSplit, inputs: Mapping[str, Path], *, decoder: Decoder, room: Room, param: str
) -> RawSplit:
    """The split's files one after the other. Raises what fits when a file or a column is unusable."""
    wanted = list(dict.fromkeys([*split.inputs, *(split.labels or []), *split.soft_columns]))
    paths = [inputs[artifact] for artifact in split.files]
    num_rows = 0
    features: dict[str, Any] = {}
    for number, path in enumerate(paths):
        with _opened(path, f"{param}/files/{number}") as file:
            names = file.schema_arrow.names
            check_known(split.inputs, names, f"{param}/inputs")
            check_known(split.labels or [], names, f"{param}/labels")
            check_known(split.soft_columns, names, f"{param}/soft_labels")
            num_rows += file.metadata.num_rows
            features = features or features_of(file.schema_arrow.metadata)
    if not 0 <= num_rows <= MAX_ROWS:
        raise MalformedParquetError(f"the files announce {num_rows:,} rows; at most {MAX_ROWS:,} are read", param=param)
    batches = _batches(paths, wanted, param)
    raw = read_columns(split, batches, num_rows, decoder=decoder, room=room, param=param)
    return with_class_names(raw, split.labels, features)


def _batches(paths: list[Path], columns: list[str], param: str) -> Iterator[pa.RecordBatch]:
    for number, path in enumerate(paths):
        with _opened(path, f"{param}/files/{number}") as file:
            batches = file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)
            while (batch := _next(batches, f"{param}/files/{number}")) is not None:
                yield batch


def _next(batches: Iterator[pa.RecordBatch], param: str) -> pa.RecordBatch | None:
    with _told(param):
        batch = next(batches, None)
        if batch is not None:
            batch.validate(full=True)
        return batch


@contextmanager
def _opened(path: Path, param: str) -> Iterator[parquet.ParquetFile]:
    with _told(param):
        file = parquet.ParquetFile(
            path, thrift_string_size_limit=_THRIFT_STRING, thrift_container_size_limit=_THRIFT_CONTAINER,
            pre_buffer=False,
        )
    with file:
        yield file


@contextmanager
def _told(param: str) -> Iterator[None]:
    """Whatever Arrow finds wrong with the bytes is one thing; that memory ran out is another."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedParquetError(f"the Parquet file cannot be read: {error}", param=param) from error
