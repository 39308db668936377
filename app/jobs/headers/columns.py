"""Headers of columns: Parquet and what Hugging Face `datasets` saved."""

from collections.abc import Mapping, Sequence
from typing import Final

from app.artifacts.inspection.facts import DatasetFolder, HuggingFaceFacts, ParquetFacts
from app.jobs.headers.stored import MAX_LISTED, NUMBERS, Shape, Stored, check_known, shape_of_images
from stillhouse.contract.archives import find_folder
from stillhouse.contract.failures import InvalidSpecError, UnknownFolderError, UnusableColumnError, UnusableLabelsError
from stillhouse.contract.spec import HuggingFaceSplit, ImageFit, LabelKind, ParquetSplit

_TEXTS: Final = frozenset({"string", "large_string"})


def shape_of_parquet(
    split: ParquetSplit, kind: LabelKind, pointer: str, stored: Mapping[str, Stored], *, fit: ImageFit
) -> Shape:
    """Shape of one input, once all columns that are read were found usable, in every file alike."""
    shape: Shape = None
    used = [*split.inputs, *(split.labels or []), *split.soft_columns]
    files = [ParquetFacts.model_validate(stored[artifact].facts).columns for artifact in split.files]
    for number, columns in enumerate(files):
        shape = shape_of_columns(split, columns, kind, pointer, fit=fit)
        odd = next((name for name in used if columns[name] != files[0][name]), None)
        if odd is not None:
            raise UnusableColumnError(
                f"Column `{odd}` is {columns[odd]} in this file and {files[0][odd]} in the first one.",
                param=f"{pointer}/files/{number}",
            )
    return shape


def dataset_folder(split: HuggingFaceSplit, name: str, facts: HuggingFaceFacts) -> DatasetFolder:
    """What the folder of a split tells. Raises UnknownFolderError."""
    found = find_folder(split.folder, name, facts.folders)
    if found is None:
        listed = ", ".join(f"`{folder}`" for folder in list(facts.folders)[:MAX_LISTED])
        said = f"no split in a folder `{split.folder}`" if split.folder else f"several splits and none is `{name}`"
        raise UnknownFolderError(f"The archive has {said}; it has {listed}.", param=f"/data/{name}/folder")
    return facts.folders[found]


def shape_of_columns(
    split: ParquetSplit | HuggingFaceSplit, columns: Mapping[str, str], kind: LabelKind, pointer: str, *, fit: ImageFit
) -> Shape:
    """Shape of one input, once all columns that are read were found usable."""
    check_known(split.inputs, columns, f"{pointer}/inputs")
    if split.labels is not None:
        check_known(split.labels, columns, f"{pointer}/labels")
        _check_label_columns([columns[name] for name in split.labels], kind, f"{pointer}/labels")
    check_known(split.soft_columns, columns, f"{pointer}/soft_labels")
    types = [columns[name] for name in split.inputs]
    if fit != ImageFit() and not _is_encoded(types[0]):
        raise InvalidSpecError(
            f"image is for encoded images, and column `{split.inputs[0]}` is {types[0]}; leave it out.",
            param="/data/image",
        )
    if all(found in NUMBERS for found in types):
        return [len(types)]
    if len(types) == 1 and _is_encoded(types[0]):
        return shape_of_images(fit)
    if len(types) == 1 and _innermost(types[0]) in NUMBERS:
        return None
    odd = next(name for name in split.inputs if len(types) == 1 or columns[name] not in NUMBERS)
    raise UnusableColumnError(
        f"Column `{odd}` is {columns[odd]}; inputs are one column of encoded images, one of lists of numbers, or "
        "columns of numbers.", param=f"{pointer}/inputs",
    )


def _is_encoded(kind: str) -> bool:
    return kind in {"binary", "large_binary"} or (kind.startswith("struct<") and "bytes: binary" in kind)


def _innermost(kind: str) -> str:
    while kind.startswith("list<") and kind.endswith(">"):
        kind = kind[len("list<"):-1]
    return kind


def _check_label_columns(types: Sequence[str], kind: LabelKind, pointer: str) -> None:
    """By type alone: whether numbers are whole and texts repeat, only the data tell."""
    single = types[0] if len(types) == 1 else None
    of_numbers = all(found in NUMBERS for found in types)
    usable = {
        "classes": single is not None and single in NUMBERS | _TEXTS,
        "multi_hot": (of_numbers and len(types) > 1)
        or (single is not None and single.startswith("list<") and _innermost(single) in NUMBERS | _TEXTS),
        "targets": of_numbers or (single is not None and single.startswith("list<") and _innermost(single) in NUMBERS),
    }
    if not usable[kind]:
        raise UnusableLabelsError(f"Labels are {', '.join(types[:MAX_LISTED])}; {_WANTED[kind]}.", param=pointer)


_WANTED: Mapping[LabelKind, str] = {
    "classes": "a classification takes one column of whole numbers or texts (for others set task.kind to multi_label, "
    "regression or embedding)",
    "multi_hot": "a multi_label task takes a column of lists, or several columns of 0 and 1",
    "targets": "a regression or an embedding takes columns of numbers, or one of lists of numbers",
}
