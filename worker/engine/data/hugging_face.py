"""Folders that Hugging Face `datasets` saved, in a tar or zip archive. Imported only where one is read, as `arrow` is.

Read without that library: the folder is Arrow streams beside two files of JSON.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stillhouse.contract.archives import Member, find_folder, walk
from stillhouse.contract.failures import MalformedDatasetError, UnknownFolderError
from stillhouse.contract.spec import HuggingFaceSplit
from worker.engine.data.arrow import MAX_ROWS, check_known, read_columns
from worker.engine.data.decode import Decoder
from worker.engine.data.features import with_class_names
from worker.engine.data.raw import RawSplit
from worker.engine.data.room import Room

MAX_INFO = 8 * 1024**2


@dataclass
class _Saved:
    """One saved split."""

    features: dict[str, Any]
    files: list[str]
    num_rows: int = 0


def read_hugging_face(
    split: HuggingFaceSplit, path: Path, name: str, *, decoder: Decoder, room: Room, param: str
) -> RawSplit:
    """The split called `name`. Raises what fits when the archive, its folders or a column are unusable."""
    folder, saved = _find(split, path, name, param)
    for part, names in (("inputs", split.inputs), ("labels", split.labels or []), ("soft_labels", split.soft_columns)):
        check_known(names, list(saved.features), f"{param}/{part}")
    saved.num_rows = sum(batch.num_rows for batch in _batches(path, folder, saved, param))
    if saved.num_rows > MAX_ROWS:
        raise MalformedDatasetError(f"it has {saved.num_rows:,} rows; at most {MAX_ROWS:,} are read", param=param)
    batches = _batches(path, folder, saved, param)
    raw = read_columns(split, batches, saved.num_rows, decoder=decoder, room=room, param=param)
    return with_class_names(raw, split.labels, saved.features)


def _find(split: HuggingFaceSplit, path: Path, name: str, param: str) -> tuple[str, _Saved]:
    """The folder of the split, and what its two files of JSON tell."""
    texts: dict[str, bytes] = {}
    with path.open("rb") as file:
        for member in walk(file, path.stat().st_size):
            if member.name.rpartition("/")[2] in {"state.json", "dataset_info.json"}:
                texts[member.name] = member.read(MAX_INFO)
    folders = [found.removesuffix("state.json").rstrip("/") for found in texts if found.endswith("state.json")]
    folder = find_folder(split.folder, name, folders)
    if folder is None:
        raise UnknownFolderError(
            f"the archive has no saved split for {name}; it has those of {', '.join(folders) or 'no folder'}",
            param=f"{param}/folder",
        )
    prefix = f"{folder}/" if folder else ""
    return prefix, _saved(texts, prefix, param)


def _saved(texts: dict[str, bytes], prefix: str, param: str) -> _Saved:
    try:
        features = json.loads(texts[f"{prefix}dataset_info.json"])["features"]
        files = [str(file["filename"]) for file in json.loads(texts[f"{prefix}state.json"])["_data_files"]]
        return _Saved(dict(features), files)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MalformedDatasetError("its dataset_info.json or state.json is damaged or missing", param=param) from error


def _batches(path: Path, prefix: str, saved: _Saved, param: str) -> Iterator[pa.RecordBatch]:
    """Batches of the split's files, in the order of the archive."""
    wanted = {f"{prefix}{name}" for name in saved.files}
    with path.open("rb") as file:
        for member in walk(file, path.stat().st_size):
            if member.name in wanted:
                wanted.discard(member.name)
                yield from _stream(member, param)
    if wanted:
        raise MalformedDatasetError(f"the archive has no `{min(wanted)}`, which state.json lists", param=param)


def _stream(member: Member, param: str) -> Iterator[pa.RecordBatch]:
    with member.open() as content:
        with _told(member.name, param):
            reader = pa.ipc.open_stream(pa.PythonFile(content, mode="r"))
        while True:
            with _told(member.name, param):
                batch = _next(reader)
            if batch is None:
                return
            yield batch


def _next(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        batch = reader.read_next_batch()
    except StopIteration:
        return None
    batch.validate(full=True)
    return batch


@contextmanager
def _told(name: str, param: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedDatasetError(f"`{name}` is no sound Arrow stream: {error}", param=param) from error
