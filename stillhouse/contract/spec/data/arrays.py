"""Arrays in files: IDX and NPZ."""

from typing import Literal

from pydantic import Field

from stillhouse.contract.spec.base import ArtifactId
from stillhouse.contract.spec.data.base import BaseData, BaseSplit, FileSplit, SoftlyLabelled


class IdxSplit(BaseSplit):
    """One split as a pair of IDX files, gzipped or not."""

    inputs: ArtifactId
    labels: ArtifactId | None = Field(
        default=None, description="IDX file of one integer label per input; leave out for unlabelled data."
    )

    def pointers(self) -> dict[str, str]:
        """Every file that this split reads: place in the split -> id of the artifact."""
        return {"inputs": self.inputs, **({"labels": self.labels} if self.labels else {})}

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class NpzSplit(FileSplit, SoftlyLabelled):
    """One split as arrays of an NPZ file."""

    inputs: str = Field(
        default="inputs", min_length=1, max_length=256, description="Name of the array of inputs in the file."
    )
    labels: str | None = Field(
        default="labels", min_length=1, max_length=256,
        description="Name of the array of labels in the file: one integer per sample, or a row of numbers for several "
        "labels, a regression or an embedding; null for unlabelled data.",
    )

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class IdxData(BaseData):
    """IDX files (the format of MNIST), gzipped or not."""

    kind: Literal["idx"] = "idx"
    train: IdxSplit = Field(description="Samples to train on.")
    validation: IdxSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: IdxSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")


class NpzData(BaseData):
    """NumPy NPZ files, read without pickle."""

    kind: Literal["npz"] = "npz"
    train: NpzSplit = Field(description="Samples to train on.")
    validation: NpzSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: NpzSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")
