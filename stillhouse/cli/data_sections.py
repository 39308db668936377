"""The data section of a spec for one file, or for one file per split, in the formats that name what they hold."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from stillhouse.cli.exits import UsageError
from stillhouse.client.errors import StillhouseClientError
from stillhouse.client.formats import guess_format
from stillhouse.contract.archives import is_image, walk
from stillhouse.contract.failures import StillhouseError

# Words by which a file or a folder tells its split.
SPLITS: Final = {"train": "train", "t10k": "test", "test": "test", "validation": "validation", "val": "validation",
                 "valid": "validation"}
# Names that a column of labels commonly has, in this order.
_LABELS: Final = ("label", "labels", "target", "class", "y")
_SHARD: Final = re.compile(r"-\d+-of-\d+$")
_MAX_HEADER: Final = 1024 * 1024


def section_of_file(file: Path) -> dict[str, Any] | None:
    """The section of one file that holds one split or all of them; None where its format names nothing."""
    match _format(file):
        case "parquet":
            return {"kind": "parquet", "train": _parquet([file])}
        case "csv":
            return {"kind": "csv", "train": _csv(file)}
        case "images":
            return {"kind": "images", **_archive(file, _image_folders(file), labels="folders")}
        case "hugging_face":
            return {"kind": "hugging_face", **_archive(file, _saved_folders(file), labels="label")}
        case _:
            return None


def section_of_folder(files: Sequence[Path]) -> dict[str, Any] | None:
    """The section of a folder with train.csv (and test.csv, ...), or of train.parquet, in shards or whole."""
    tables = {split: file for file in files if file.suffix == ".csv" and (split := SPLITS.get(file.stem.lower()))}
    if "train" in tables:
        return {"kind": "csv", **{split: _csv(file) for split, file in tables.items()}}
    shards: dict[str, list[Path]] = {}
    for file in files:
        split = SPLITS.get(_SHARD.sub("", file.stem.lower()))
        if file.suffix == ".parquet" and split:
            shards.setdefault(split, []).append(file)
    if "train" in shards:
        return {"kind": "parquet", **{split: _parquet(found) for split, found in shards.items()}}
    return None


def _format(file: Path) -> str | None:
    if file.suffix == ".npz":
        return None
    try:
        return guess_format(file)
    except StillhouseClientError:
        return None


def _parquet(files: list[Path]) -> dict[str, Any]:
    return {"files": files, "labels": "label"}


def _csv(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        names = next(csv.reader([text.readline(_MAX_HEADER)]), [])
    by_lower = {name.lower(): name for name in reversed(names)}
    label = next((by_lower[name] for name in _LABELS if name in by_lower), None)
    if label is None:
        raise UsageError(
            f"none of the columns of {file.name} is called label, target, class or y; name the column of labels in a "
            "job spec and use `stillhouse submit`"
        )
    return {"artifact": file, "labels": label}


def _archive(file: Path, folders: Sequence[str], *, labels: str) -> dict[str, Any]:
    """Its folders that are named like splits; the whole of it where none is."""
    named = {SPLITS[folder.rpartition("/")[2].lower()]: folder for folder in folders if _is_split(folder)}
    if "train" not in named:
        return {"train": {"artifact": file, "labels": labels}}
    return {split: {"artifact": file, "folder": folder, "labels": labels} for split, folder in named.items()}


def _is_split(folder: str) -> bool:
    return folder.rpartition("/")[2].lower() in SPLITS


def _image_folders(file: Path) -> list[str]:
    """Folders of the first two levels: an archive often has one folder at its top."""
    paths = [name.split("/")[:-1] for name in _names(file) if is_image(name)]
    return list(dict.fromkeys("/".join(path[:depth]) for depth in (1, 2) for path in paths if len(path) > depth))


def _saved_folders(file: Path) -> list[str]:
    return [name.rpartition("/")[0] for name in _names(file) if name.rpartition("/")[2] == "state.json"]


def _names(file: Path) -> Iterator[str]:
    with file.open("rb") as content:
        try:
            for member in walk(content, file.stat().st_size):
                yield member.name
        except StillhouseError as error:
            raise UsageError(f"{file.name} cannot be read: {error.message}") from error
