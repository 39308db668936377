"""The job spec: what a client asks for. Only teacher, student and data are required."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from stillhouse.contract.spec.base import Section
from stillhouse.contract.spec.data import Data, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.objective import Objective, usual_objective
from stillhouse.contract.spec.soft_labels import AutoSoftLabels, SoftLabels, ViewedSoftLabels
from stillhouse.contract.spec.student import Student
from stillhouse.contract.spec.task import Task
from stillhouse.contract.spec.teacher import CheckpointTeacher, Teacher
from stillhouse.contract.spec.training import Training

LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, Field(max_length=512)]


class JobSpec(Section):
    """A distillation job."""

    version: Literal[1] = Field(default=1, description="Version of this schema.")
    name: str | None = Field(default=None, min_length=1, max_length=128, description="A name for people.")
    labels: dict[LabelKey, LabelValue] = Field(
        default={}, max_length=16, description="Key-value pairs to find the job by."
    )
    teacher: Teacher = Field(description="Where the soft labels come from.")
    student: Student = Field(description="What the teacher is distilled into.")
    data: Data = Field(description="Where the samples are and how to read them.")
    task: Task | None = Field(
        default=None,
        description="What the models are for. Inputs of one axis are a table, others are images, when left out.",
    )
    objective: Objective | None = Field(
        default=None,
        description="What the student minimises. `kl` at temperature 2 plus half of `cross_entropy`, or `kl` alone on "
        "unlabelled data, when left out.",
    )
    training: Training = Field(default=Training(), description="How the student is trained.")
    soft_labels: SoftLabels = Field(
        default=AutoSoftLabels(),
        description="When the teacher is asked: once for each sample or view, which jobs share, or at every step.",
    )
    control: bool = Field(
        default=True,
        description="Train the same student on the labels without the teacher as well, so that the report can tell "
        "what distillation gained. Needs labels; about doubles the training time.",
    )
    export: Export = Field(default=Export(), description="What comes out.")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Seed of the initial weights, the order of samples and dropout."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Kind of worker the job waits for; `auto` takes the service's default."
    )

    @field_validator("soft_labels")
    @classmethod
    def _views_can_be_stored(cls, soft_labels: SoftLabels, info: ValidationInfo) -> SoftLabels:
        if isinstance(soft_labels, ViewedSoftLabels):
            _check_views(soft_labels.views, info.data.get("objective"), info.data.get("training"))
        return soft_labels

    @model_validator(mode="after")
    def _labels_where_needed(self) -> Self:
        if self.data.train.is_labelled:
            return self
        if self.objective is not None and self.objective.needs_labels:
            raise ValueError("the objective has a cross_entropy term, but data.train has no labels")
        if self.teacher.kind == "train":
            raise ValueError("a teacher of kind train learns from labels, but data.train has none")
        if self.training.selection_metric == "accuracy" and not self.has_validation_labels:
            raise ValueError("selection_metric is accuracy, but the validation split has no labels; use agreement")
        return self

    @property
    def has_validation_labels(self) -> bool:
        """Whether the split that selects has labels."""
        return (self.data.validation or self.data.train).is_labelled

    @property
    def effective_objective(self) -> Objective:
        """The objective that is trained: as given, else the default for the data."""
        return self.objective or usual_objective(is_labelled=self.data.train.is_labelled)

    @property
    def trains_control(self) -> bool:
        """Whether the same student is also trained without the teacher."""
        return self.control and self.data.train.is_labelled

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Each split that is given, with its name."""
        for name in ("train", "validation", "test"):
            split = getattr(self.data, name)
            if split is not None:
                yield name, split

    def artifacts(self) -> dict[str, str]:
        """Every artifact that the job reads: JSON pointer of the field -> id of the artifact."""
        found: dict[str, str] = {}
        if isinstance(self.teacher, CheckpointTeacher):
            found["/teacher/artifact"] = self.teacher.artifact
        for name, split in self.splits():
            for field in ("artifact", "inputs", "labels"):
                value = getattr(split, field, None)
                if value in split.artifacts:
                    found[f"/data/{name}/{field}"] = value
        return found


def _check_views(views: int, objective: Objective | None, training: Training | None) -> None:
    """Raise ValueError where stored views could not serve. Sections that are wrong themselves are None."""
    if objective is not None and objective.needs_features:
        raise ValueError(
            "terms of the objective look at the teacher's layers, which no store holds; use kind online, or leave "
            "those terms out"
        )
    if objective is not None and not objective.needs_teacher:
        raise ValueError("no term of the objective asks the teacher; leave soft_labels out, or add a term such as kl")
    if training is not None and training.augmentation is None and views > 1:
        raise ValueError(
            "without training.augmentation all views of a sample are the same; give views 1, or an augmentation"
        )
