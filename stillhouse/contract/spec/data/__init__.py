"""Where the samples are and how to read them, one file per family of formats."""

from typing import Annotated

from pydantic import Field

from stillhouse.contract.spec.data.arrays import IdxData, IdxSplit, NpzData, NpzSplit
from stillhouse.contract.spec.data.base import (
    BaseData,
    BaseSplit,
    Normalization,
    PictureData,
    SoftLabelColumns,
    SoftTopK,
    SoftVectors,
    SoftVotes,
)
from stillhouse.contract.spec.data.columns import HuggingFaceData, HuggingFaceSplit, ParquetData, ParquetSplit
from stillhouse.contract.spec.data.folders import ImagesData, ImagesSplit
from stillhouse.contract.spec.data.image import ImageFit
from stillhouse.contract.spec.data.label_kinds import LabelKind, label_kind
from stillhouse.contract.spec.data.table import CsvData, CsvSplit

__all__ = [
    "BaseData", "BaseSplit", "CsvData", "CsvSplit", "Data", "HuggingFaceData", "HuggingFaceSplit", "IdxData",
    "IdxSplit", "ImageFit", "ImagesData", "ImagesSplit", "LabelKind", "Normalization", "NpzData", "NpzSplit",
    "ParquetData", "ParquetSplit", "PictureData", "SoftLabelColumns", "SoftTopK", "SoftVectors", "SoftVotes", "Split",
    "label_kind",
]

Split = IdxSplit | NpzSplit | ParquetSplit | ImagesSplit | HuggingFaceSplit | CsvSplit
Data = Annotated[
    IdxData | NpzData | ParquetData | ImagesData | HuggingFaceData | CsvData, Field(discriminator="kind")
]
