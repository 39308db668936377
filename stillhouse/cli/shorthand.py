"""Short ways to write a spec on a command line: `mlp:64`, a folder of data, a teacher's file."""

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stillhouse.cli.data_sections import SPLITS, section_of_file, section_of_folder
from stillhouse.cli.exits import UsageError, first_problem
from stillhouse.contract.spec import Architecture, Student

_FORM = re.compile(r"(?P<kind>[a-z]+)(?::(?P<rest>\S+))?")
_WIDTHS = re.compile(r"\d+(?:-\d+)*")
# resnet8x4 of the literature: stem 32 and stages of 64, 128 and 256; without x4 they are 16, and 16, 32, 64.
_RESNET = re.compile(r"(?P<depth>\d+)(?:x(?P<times>\d+))?")
_WRN = re.compile(r"(?P<depth>\d+)-(?P<factor>\d+)")
_RATIO = re.compile(r"0?\.\d+")
_EXAMPLES = (
    "write mlp:64 (one hidden layer of 64), mlp:256-128 (two), cnn:16-32 (two stages of convolutions), resnet:20, "
    "wrn:40-2, timm:resnet18, torchvision:resnet18, transformers:vit"
)
_ARTIFACT = re.compile(r"art_[0-9a-z]{20}")
_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)
_STUDENT: TypeAdapter[Student] = TypeAdapter(Student)

# Words by which a file name tells its role.
_ROLES = {"images": "inputs", "inputs": "inputs", "data": "inputs", "labels": "labels"}
_IDX = re.compile(r"idx\d?|ubyte")
# Names that arrays of inputs and labels commonly have.
_ARRAYS = (("inputs", "labels"), ("x", "y"), ("X", "y"), ("images", "labels"), ("data", "labels"), ("data", "target"))
_SUFFIXED = (("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_inputs", "{}_labels"))


@dataclass(frozen=True)
class DataFiles:
    """The `data` section of a spec in which files stand where ids of artifacts will."""

    section: Mapping[str, Any]

    def files(self) -> list[Path]:
        """Each file once."""
        return list(dict.fromkeys(_paths(self.section)))

    def with_ids(self, ids: Mapping[Path, str]) -> dict[str, Any]:
        """The section with the ids of the uploaded files."""
        replaced = _replace(self.section, ids)
        if not isinstance(replaced, dict):
            raise TypeError("a section is a mapping")
        return replaced


def is_artifact_id(text: str) -> bool:
    """Whether this is the id of a file that is stored already."""
    return _ARTIFACT.fullmatch(text) is not None


def architecture(text: str) -> dict[str, Any]:
    """`mlp:64`, `cnn:16-32`, `resnet:20`, `timm:resnet18`, or JSON, as a section of a spec."""
    return _checked(text, _ARCHITECTURE, f"{text!r} is not an architecture", f"{_EXAMPLES}, or JSON as in a job spec")


def student(text: str) -> dict[str, Any]:
    """As `architecture`, or `pruned:0.5` for the teacher with half of its work."""
    told = f"{text!r} is neither an architecture nor a student made from the teacher"
    return _checked(text, _STUDENT, told, f"{_EXAMPLES}, pruned:0.5, or JSON as in a job spec")


def data_files(place: Path) -> DataFiles:
    """The data in a folder of IDX, NPZ, Parquet or CSV files, or in one file of any format but IDX."""
    if place.is_file():
        return DataFiles(section_of_file(place) or _npz_file(place))
    if not place.is_dir():
        raise UsageError(f"there is no folder or file {place}")
    files = sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))
    section = _idx_folder(files) or section_of_folder(files) or _npz_folder(files)
    if section is None:
        raise UsageError(
            f"no training data found in {place}. It takes IDX files named like train-images-idx3-ubyte.gz and "
            "train-labels-idx1-ubyte.gz (test: t10k-... or test-...), train.npz (and test.npz) with arrays `inputs` "
            "and `labels`, train.csv or train.parquet (and test). A folder of images goes as one tar or zip file."
        )
    return DataFiles(section)


def labels(texts: Iterable[str]) -> dict[str, str]:
    """`team=vision` pairs."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is not a label; write KEY=VALUE")
        pairs[key] = value
    return pairs


def _checked(text: str, kind: TypeAdapter[Any], told: str, advice: str) -> dict[str, Any]:
    section = _from_json(text) if text.lstrip().startswith("{") else _from_short(text.strip())
    if section is None:
        raise UsageError(f"{told}; {advice}")
    try:
        kind.validate_python(section)
    except ValidationError as error:
        raise UsageError(f"{told}: {first_problem(error)}") from error
    return section


def _from_short(text: str) -> dict[str, Any] | None:
    """The section that the shorthand means; None where it is none."""
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    kind, rest = form["kind"], form["rest"]
    if kind not in _SHORT:
        return None
    if rest is None:
        return {"kind": kind} if kind not in _NAMED else None
    options = _SHORT[kind](rest)
    return None if options is None else {"kind": kind} | options


def _widths(field: str) -> Callable[[str], dict[str, Any] | None]:
    def read(text: str) -> dict[str, Any] | None:
        return {field: [int(width) for width in text.split("-")]} if _WIDTHS.fullmatch(text) else None

    return read


def _named(field: str) -> Callable[[str], dict[str, Any] | None]:
    return lambda text: {field: text}


def _resnet(text: str) -> dict[str, Any] | None:
    form = _RESNET.fullmatch(text)
    if form is None:
        return None
    times = int(form["times"] or 1)
    wide = {"stem": 8 * times, "channels": [16 * times, 32 * times, 64 * times]} if form["times"] else {}
    return {"depth": int(form["depth"])} | wide


def _wrn(text: str) -> dict[str, Any] | None:
    form = _WRN.fullmatch(text)
    return {"depth": int(form["depth"]), "widen_factor": int(form["factor"])} if form else None


def _ratio(text: str) -> dict[str, Any] | None:
    return {"ratio": float(text)} if _RATIO.fullmatch(text) else None


# What stands behind the colon, by kind. Models of libraries need it.
_SHORT: Mapping[str, Callable[[str], dict[str, Any] | None]] = {
    "mlp": _widths("hidden"), "cnn": _widths("channels"), "resnet": _resnet, "wrn": _wrn, "timm": _named("name"),
    "torchvision": _named("name"), "transformers": _named("model_type"), "pruned": _ratio,
}
_NAMED = ("timm", "torchvision", "transformers")


def _from_json(text: str) -> dict[str, Any]:
    try:
        section = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the architecture is not JSON: {error}") from error
    if not isinstance(section, dict):
        raise UsageError("the architecture must be a JSON object")
    return section


def _idx_folder(files: list[Path]) -> dict[str, Any] | None:
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        words = re.split(r"[-_.]", file.name.lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        role = next((_ROLES[word] for word in words if word in _ROLES), None)
        if split and role and any(_IDX.fullmatch(word) for word in words):
            _put(found.setdefault(split, {}), role, file)
    return {"kind": "idx", **_with_inputs(found)} if "inputs" in found.get("train", {}) else None


def _put(roles: dict[str, Path], role: str, file: Path) -> None:
    if role in roles:
        raise UsageError(
            f"{roles[role].name} and {file.name} could both be the {role} of one split; leave one in the folder, or "
            "write a job spec and use `stillhouse submit`"
        )
    roles[role] = file


def _with_inputs(found: Mapping[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """Labels without inputs are no split."""
    return {split: roles for split, roles in found.items() if "inputs" in roles}


def _npz_folder(files: list[Path]) -> dict[str, Any] | None:
    splits: dict[str, Any] = {}
    for file in files:
        split = SPLITS.get(file.stem.lower())
        if file.suffix == ".npz" and split:
            inputs, labels_name = _arrays(file)
            splits[split] = {"artifact": file, "inputs": inputs, "labels": labels_name}
    archives = [file for file in files if file.suffix == ".npz"]
    if not splits and len(archives) == 1:
        return _npz_file(archives[0])
    return {"kind": "npz", **splits} if "train" in splits else None


def _npz_file(file: Path) -> dict[str, Any]:
    """One file with one split, or with arrays named by split (x_train, y_train, x_test, y_test)."""
    names = _array_names(file)
    for inputs, labels_name in _SUFFIXED:
        if inputs.format("train") in names:
            return {"kind": "npz"} | {
                split: {
                    "artifact": file, "inputs": inputs.format(word),
                    "labels": labels_name.format(word) if labels_name.format(word) in names else None,
                }
                for word, split in SPLITS.items() if inputs.format(word) in names
            }
    inputs, found = _arrays(file)
    return {"kind": "npz", "train": {"artifact": file, "inputs": inputs, "labels": found}}


def _arrays(file: Path) -> tuple[str, str | None]:
    """Names of the arrays of inputs and, where there is one, of labels."""
    names = _array_names(file)
    for inputs, found in _ARRAYS:
        if inputs in names:
            return inputs, found if found in names else None
    raise UsageError(
        f"{file.name} holds {', '.join(sorted(names)) or 'no array'}, and none of them is known as the inputs; name "
        "them `inputs` and `labels`, or say their names in a job spec and use `stillhouse submit`"
    )


def _array_names(file: Path) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise UsageError(f"{file.name} is not an NPZ file") from error


def _paths(value: object) -> Iterable[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _paths(item)


def _replace(value: object, ids: Mapping[Path, str]) -> object:
    if isinstance(value, Path):
        return ids[value]
    if isinstance(value, Mapping):
        return {key: _replace(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, ids) for item in value]
    return value
