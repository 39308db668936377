"""Where the soft labels come from."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.architecture import Architecture
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Normalization
from stillhouse.contract.spec.training import Training

Floor = Annotated[
    float,
    Field(
        gt=0, lt=0.1,
        description="Smallest probability that a teacher who gives probabilities is taken at: a logarithm of 0 teaches "
        "nothing.",
    ),
]


class CheckpointTeacher(Section):
    """A trained model: weights as safetensors, architecture by name."""

    kind: Literal["checkpoint"] = "checkpoint"
    artifact: ArtifactId
    architecture: Architecture | None = Field(
        default=None,
        description="What the weights belong to. Read from the checkpoint's own metadata (key `stillhouse`) when "
        "left out.",
    )
    normalization: Normalization | None = Field(
        default=None,
        description="How the teacher's inputs are normalised. Read from the checkpoint's metadata when left out, "
        "else the student's is used.",
    )


class OnnxTeacher(Section):
    """A model of any framework as one ONNX file, executed by ONNX Runtime."""

    kind: Literal["onnx"] = "onnx"
    artifact: ArtifactId
    columns: dict[Annotated[str, Field(max_length=256)], list[Annotated[int, Field(ge=0, lt=65_536)]]] | None = Field(
        default=None, max_length=65_536,
        description="For a table and a model of several inputs: which columns each input reads, by place from 0. In "
        "the order of the model's inputs, each as wide as it declares, when left out.",
    )
    output: str | None = Field(
        default=None, max_length=256,
        description="Name of the output that is the answer. The first of numbers, one row per sample, when left out; "
        "of a scikit-learn classifier the probabilities, not the labels.",
    )
    gives: Literal["auto", "logits", "probabilities", "values"] = Field(
        default="auto",
        description="What the output is. `auto` looks at the first samples: rows that are not negative and add up to 1 "
        "are probabilities, others logits, or values where the task is no classification.",
    )
    floor: Floor = 1e-7
    normalization: Normalization | None = Field(
        default=None, description="How the model's inputs are normalised. It gets the raw values when left out."
    )


class SoftLabelsTeacher(Section):
    """Soft labels that come with the data: `data.train.soft_labels` names them."""

    kind: Literal["soft_labels"] = "soft_labels"
    gives: Literal["probabilities", "logits", "values"] = Field(
        default="probabilities",
        description="What vectors are: probabilities or logits of each class, or values of a regression or an "
        "embedding. Votes of raters are counted into probabilities; top-k pairs tell it themselves.",
    )
    floor: Floor = 1e-3


MemberTeacher = Annotated[CheckpointTeacher | OnnxTeacher | SoftLabelsTeacher, Field(discriminator="kind")]


class Member(Section):
    """One teacher of several."""

    teacher: MemberTeacher = Field(description="Where this member's answers come from.")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="Its share, relative to the others' weights.")


class EnsembleTeacher(Section):
    """Several teachers that answer as one."""

    kind: Literal["ensemble"] = "ensemble"
    members: list[Member] = Field(min_length=2, max_length=16, description="Teachers of the same classes.")
    average: Literal["probabilities", "logits"] = Field(
        default="probabilities",
        description="What is averaged: probabilities, at each term's own temperature, or logits. Values of a "
        "regression or an embedding are averaged as they are.",
    )


class TrainTeacher(Section):
    """Train this architecture on the labels first, then distil it."""

    kind: Literal["train"] = "train"
    architecture: Architecture = Field(description="What is trained.")
    training: Training = Field(default=Training(), description="How the teacher is trained.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="For the teacher's own cross-entropy.")


Teacher = Annotated[
    CheckpointTeacher | OnnxTeacher | SoftLabelsTeacher | EnsembleTeacher | TrainTeacher, Field(discriminator="kind")
]
