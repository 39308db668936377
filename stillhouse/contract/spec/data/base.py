"""What every kind of data set has: which split selects, which classes there are, how inputs are normalised."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data.image import ImageFit


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


# One of them may be written without brackets.
Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[
    list[Name], BeforeValidator(_listed, json_schema_input_type=Name | list[Name]),
    Field(min_length=1, max_length=65_536),
]
ArtifactIds = Annotated[
    list[ArtifactId], BeforeValidator(_listed, json_schema_input_type=ArtifactId | list[ArtifactId]),
    Field(min_length=1, max_length=4096),
]


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


class SoftVectors(Section):
    """One vector per sample: the teacher's logits or probabilities of each class."""

    kind: Literal["vectors"] = "vectors"
    values: Names = Field(description="Name of the list column or array of vectors, or of one column per class.")

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return self.values


class SoftTopK(Section):
    """The k most likely classes of each sample, and their logits or probabilities."""

    kind: Literal["top_k"] = "top_k"
    indices: Names = Field(
        description="Name of the list column or array of class numbers, -1 for none, or of k columns."
    )
    values: Names = Field(description="Name of the list column or array of their values, or of k columns.")
    gives: Literal["probabilities", "logits"] = Field(
        default="probabilities",
        description="What the values are. What k probabilities leave of 1 is spread evenly over the other classes; of "
        "logits the smallest stands for all other classes.",
    )

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return [*self.indices, *self.values]


class SoftVotes(Section):
    """Each sample's class according to several raters."""

    kind: Literal["votes"] = "votes"
    votes: Names = Field(
        description="Name of the list column or array of class numbers, -1 where a rater said nothing, or of one "
        "column per rater."
    )

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return self.votes


SoftLabelColumns = Annotated[SoftVectors | SoftTopK | SoftVotes, Field(discriminator="kind")]


class BaseSplit(Section):
    """Some of the samples."""

    def pointers(self) -> dict[str, str]:
        """Every file that this split reads: place in the split -> id of the artifact."""
        raise NotImplementedError

    @property
    def artifacts(self) -> list[str]:
        """Ids of the files that this split reads."""
        return list(self.pointers().values())

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        raise NotImplementedError

    def unlabelled(self) -> Self:
        """The split for a task that reads no labels."""
        return self.model_copy(update={"labels": None}) if "labels" in type(self).model_fields else self


class FileSplit(BaseSplit):
    """A split in one file."""

    artifact: ArtifactId

    def pointers(self) -> dict[str, str]:
        """Every file that this split reads: place in the split -> id of the artifact."""
        return {"artifact": self.artifact}


class SoftlyLabelled(BaseSplit):
    """A split that may also hold what a teacher said."""

    soft_labels: SoftLabelColumns | None = Field(
        default=None,
        description="Columns or arrays of what a teacher said of each sample, for a teacher of kind soft_labels.",
    )

    @property
    def soft_columns(self) -> list[str]:
        """Names of the columns or arrays of soft labels."""
        return self.soft_labels.columns if self.soft_labels else []


class BaseData(Section):
    """What every kind of data set has."""

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
    label_names: list[Name] | None = Field(
        default=None, min_length=1, max_length=1_000_000,
        description="Name of each class, label or target, in the order of the models' outputs. Labels that are text "
        "must be among them. Ends in the bundle. Where labels are text and this is left out: the training split's, "
        "sorted.",
    )
    missing_label: int | None = Field(
        default=None, ge=-(2**63), lt=2**63,
        description="Integer that stands for `no label`, such as -1. Empty cells and nulls always do.",
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


def refuse_layout(data: BaseData) -> None:
    """Raise ValueError where a layout is given for what has none."""
    if data.layout != "auto":
        raise ValueError("layout orders the axes of arrays, and these data have none; leave it out")


class PictureData(BaseData):
    """A data set whose images are files of their own: encoded, and of any size."""

    image: ImageFit = Field(
        default=ImageFit(), description="How encoded images become arrays of one shape, once, when they are decoded."
    )
