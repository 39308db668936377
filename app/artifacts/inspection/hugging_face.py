"""Reads what a folder saved by Hugging Face `datasets` tells about its columns; the Arrow files are only counted."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO

from pydantic import ValidationError
from pydantic_core import from_json

from app.artifacts.inspection.facts import DatasetFolder, HuggingFaceFacts
from stillhouse.contract.archives import Member, walk
from stillhouse.contract.bounds import MIB
from stillhouse.contract.failures import EmptyDataError, MalformedDatasetError

MAX_FOLDERS = 64
MAX_DEPTH = 16
MAX_INFO = 8 * MIB
_IMAGE = "struct<bytes: binary, path: string>"


def inspect_hugging_face(file: BinaryIO, size: int) -> HuggingFaceFacts:
    """Facts of every split. Raises MalformedDatasetError, EmptyDataError, or what is wrong with the archive."""
    infos: dict[str, Any] = {}
    states: dict[str, Any] = {}
    arrows: Counter[str] = Counter()
    for member in walk(file, size):
        folder, _, name = member.name.rpartition("/")
        if name == "dataset_info.json":
            infos[folder] = _json(member)
        elif name == "state.json":
            states[folder] = _json(member)
        elif name.endswith(".arrow"):
            arrows[folder] += 1
    if not states:
        raise MalformedDatasetError("The archive has no state.json, which `save_to_disk` writes into every split.")
    if len(states) > MAX_FOLDERS:
        raise MalformedDatasetError(f"The archive has {len(states)} splits; at most {MAX_FOLDERS} are read.")
    return HuggingFaceFacts(folders={
        folder: _folder(folder, infos.get(folder), states[folder], arrows[folder]) for folder in sorted(states)
    })


def _json(member: Member) -> dict[str, Any]:
    try:
        content = from_json(member.read(MAX_INFO), allow_inf_nan=False)
    except ValueError as error:
        raise MalformedDatasetError(f"`{member.name}` is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise MalformedDatasetError(f"`{member.name}` is not a JSON object.")
    return content


def _folder(folder: str, info: Mapping[str, Any] | None, state: Mapping[str, Any], num_files: int) -> DatasetFolder:
    where = f"`{folder}`" if folder else "the archive's root"
    if info is None or not isinstance(info.get("features"), dict):
        raise MalformedDatasetError(f"The split in {where} has no dataset_info.json with features.")
    files = state.get("_data_files")
    if not isinstance(files, list) or len(files) != num_files:
        raise MalformedDatasetError(f"The Arrow files in {where} are not those that its state.json lists.")
    if not files:
        raise EmptyDataError(f"The split in {where} has no Arrow file: no samples.")
    features = info["features"]
    names = {name: feature["names"] for name, feature in features.items() if _has_names(feature)}
    try:
        return DatasetFolder(
            columns={name: _type(feature) for name, feature in features.items()}, label_names=names,
            num_files=num_files,
        )
    except ValidationError as error:
        raise MalformedDatasetError(f"The features in {where} are damaged: {error.errors()[0]['msg']}.") from error


def _has_names(feature: object) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and bool(feature.get("names"))


def _type(feature: object, depth: int = 0) -> str:
    """The column's type by Arrow's name; `unknown` for what no data set of ours can hold."""
    kind = "unknown"
    match feature:
        case {"_type": "Value", "dtype": str(dtype)}:
            kind = dtype[:64]
        case {"_type": "ClassLabel"}:
            kind = "int64"
        case {"_type": "Image"}:
            kind = _IMAGE
        case {"_type": "List" | "LargeList" | "Sequence", "feature": inner} | [inner] if depth < MAX_DEPTH:
            kind = f"list<{_type(inner, depth + 1)}>"
        case {"_type": "Array2D" | "Array3D" | "Array4D", "dtype": str(dtype), "shape": list(shape)}:
            kind = "list<" * len(shape[:4]) + dtype[:64] + ">" * len(shape[:4])
    return kind
