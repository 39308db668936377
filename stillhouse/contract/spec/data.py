"""Where the samples are and how to read them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import ArtifactId, Section


class Normalization(Section):
    """Inputs become (x * scale - mean) / std, per channel of an image or per column of a table."""

    scale: float = Field(
        default=1.0, gt=0, description="Factor applied first; 1/255 turns bytes into the range 0 to 1."
    )
    mean: list[float] = Field(
        min_length=1, description="Per channel or column, in units of the scaled input. One value serves all."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="Per channel or column, in units of the scaled input. One value serves all."
    )

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values and std has {len(self.std)}; give one of each per channel"
            )
        return self


class IdxSplit(Section):
    """One split as a pair of IDX files, gzipped or not."""

    inputs: ArtifactId
    labels: ArtifactId | None = Field(
        default=None, description="IDX file of the labels, as the task wants them; leave out for unlabelled data."
    )

    @property
    def artifacts(self) -> list[str]:
        """Ids of the files that this split reads."""
        return [self.inputs, *([self.labels] if self.labels else [])]

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class NpzSplit(Section):
    """One split as arrays of an NPZ file."""

    artifact: ArtifactId
    inputs: str = Field(
        default="inputs", min_length=1, max_length=256, description="Name of the array of inputs in the file."
    )
    labels: str | None = Field(
        default="labels", min_length=1, max_length=256,
        description="Name of the array of labels in the file, as the task wants them; null for unlabelled data.",
    )

    @property
    def artifacts(self) -> list[str]:
        """Ids of the files that this split reads."""
        return [self.artifact]

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class _Dataset(Section):
    validation_fraction: float = Field(
        default=0.1, gt=0, le=0.5,
        description="Share of the training split held out to select the best step, when no validation "
        "split is given. Drawn with `split_seed`, by class where there are labels.",
    )
    split_seed: int = Field(
        default=0, ge=0, lt=2**63, description="Seed of the draw of the validation split."
    )
    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000,
        description="Width of the models' outputs: number of classes, labels or targets, or dimensions of an "
        "embedding. Taken from the teacher, else from the labels, when left out.",
    )
    label_names: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        default=None, min_length=1, max_length=1_000_000,
        description="Name of each class, label or target, in the order of the models' outputs. Ends in the bundle.",
    )
    layout: Literal["auto", "hw", "hwc", "chw"] = Field(
        default="auto",
        description="Order of an image's axes: height, width, channels. `auto` reads three axes as hw, and four "
        "as hwc when the last axis has 1, 3 or 4 entries, else as chw.",
    )
    normalization: Normalization | None = Field(
        default=None,
        description="How the student's inputs are normalised. Measured on the training split when left out.",
    )

    @property
    def given_num_classes(self) -> int | None:
        """The width of the outputs that this section tells."""
        return self.num_classes or (len(self.label_names) if self.label_names else None)

    @model_validator(mode="after")
    def _names_match_classes(self) -> Self:
        if self.label_names is None:
            return self
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names repeats a name; each output needs a name of its own")
        if self.num_classes not in {None, len(self.label_names)}:
            raise ValueError(
                f"label_names has {len(self.label_names)} names for num_classes {self.num_classes}"
            )
        return self


class IdxData(_Dataset):
    """IDX files (the format of MNIST), gzipped or not."""

    kind: Literal["idx"] = "idx"
    train: IdxSplit = Field(description="Samples to train on.")
    validation: IdxSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: IdxSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")


class NpzData(_Dataset):
    """NumPy NPZ files, read without pickle."""

    kind: Literal["npz"] = "npz"
    train: NpzSplit = Field(description="Samples to train on.")
    validation: NpzSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: NpzSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")


Split = IdxSplit | NpzSplit
Data = Annotated[IdxData | NpzData, Field(discriminator="kind")]
