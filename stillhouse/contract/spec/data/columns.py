"""Columns with names: Parquet files, and folders that Hugging Face `datasets` saved."""

from typing import Literal

from pydantic import Field

from stillhouse.contract.spec.data.base import (
    ArtifactIds,
    FileSplit,
    Names,
    PictureData,
    SoftlyLabelled,
)


class _Columns(SoftlyLabelled):
    inputs: Names = Field(
        default=["image"],
        description="Column of encoded images (PNG, JPEG or WebP bytes), or of lists of numbers, or the names of "
        "several columns of numbers.",
    )
    labels: Names | None = Field(
        default=["label"],
        description="Column of one class per sample, as a whole number or as text; for several labels, a regression or "
        "an embedding also a column of lists, or the names of several columns. Null for unlabelled data.",
    )

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class ParquetSplit(_Columns):
    """One split as Parquet files."""

    files: ArtifactIds = Field(description="One file, or several of the same columns, read in this order.")

    def pointers(self) -> dict[str, str]:
        """Every file that this split reads: place in the split -> id of the artifact."""
        return {f"files/{number}": artifact for number, artifact in enumerate(self.files)}


class HuggingFaceSplit(FileSplit, _Columns):
    """One split of a folder that `save_to_disk` of Hugging Face `datasets` wrote, as one tar or zip file."""

    folder: str | None = Field(
        default=None, min_length=1, max_length=1024,
        description="Folder in the archive that holds the split's state.json. The only one, or the one with the "
        "split's name, when left out.",
    )


class ParquetData(PictureData):
    """Parquet files."""

    kind: Literal["parquet"] = "parquet"
    train: ParquetSplit = Field(description="Samples to train on.")
    validation: ParquetSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: ParquetSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")


class HuggingFaceData(PictureData):
    """Folders that `save_to_disk` of Hugging Face `datasets` wrote, as tar (gzipped or not) or zip."""

    kind: Literal["hugging_face"] = "hugging_face"
    train: HuggingFaceSplit = Field(description="Samples to train on.")
    validation: HuggingFaceSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: HuggingFaceSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")
