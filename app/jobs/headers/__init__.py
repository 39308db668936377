"""What the data section of a spec and the headers of its files can tell before anything is read."""

from collections.abc import Mapping
from typing import assert_never

from app.artifacts.inspection.facts import CsvFacts, HuggingFaceFacts
from app.jobs.headers.arrays import label_width, shape_of_arrays
from app.jobs.headers.columns import dataset_folder, shape_of_columns, shape_of_parquet
from app.jobs.headers.folders import check_folders
from app.jobs.headers.stored import Shape, Stored, agree, in_words, shape_of_images
from app.jobs.headers.table import check_table
from stillhouse.contract.failures import InputShapeMismatchError
from stillhouse.contract.spec import (
    CsvData,
    CsvSplit,
    HuggingFaceSplit,
    IdxSplit,
    ImageFit,
    ImagesData,
    ImagesSplit,
    JobSpec,
    NpzSplit,
    ParquetSplit,
    PictureData,
    Split,
    label_kind,
)

__all__ = ["Shape", "Stored", "agree", "check_data", "in_words", "label_width"]


def check_data(spec: JobSpec, stored: Mapping[str, Stored]) -> Shape:
    """Shape of one input. Raises the failure that names what cannot be read as the spec says."""
    shapes = {name: _shape(spec, name, split, stored) for name, split in spec.splits()}
    for name, other in shapes.items():
        if not agree(other, shapes["train"]):
            raise InputShapeMismatchError(
                f"Inputs of {name} have shape {in_words(other)}, those of train {in_words(shapes['train'])}.",
                param=f"/data/{name}/inputs",
            )
    if isinstance(spec.data, ImagesData):
        check_folders(spec.data, stored)
    return shapes["train"]


def _shape(spec: JobSpec, name: str, split: Split, stored: Mapping[str, Stored]) -> Shape:
    """Shape of one input of a split, once all that is read of it was found usable."""
    kind = label_kind(spec.task.kind)
    fit = spec.data.image if isinstance(spec.data, PictureData) else ImageFit()
    pointer = f"/data/{name}"
    match split:
        case IdxSplit() | NpzSplit():
            return shape_of_arrays(split, kind, pointer, stored, layout=spec.data.layout)
        case ParquetSplit():
            return shape_of_parquet(split, kind, pointer, stored, fit=fit)
        case HuggingFaceSplit():
            folder = dataset_folder(split, name, HuggingFaceFacts.model_validate(stored[split.artifact].facts))
            return shape_of_columns(split, folder.columns, kind, pointer, fit=fit)
        case CsvSplit():
            assert isinstance(spec.data, CsvData)  # noqa: S101 - which has no other splits
            check_table(spec.data, split, pointer, CsvFacts.model_validate(stored[split.artifact].facts))
            return [None]
        case ImagesSplit():
            return shape_of_images(fit)
    assert_never(split)
