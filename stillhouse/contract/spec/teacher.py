"""Where the soft labels come from."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.architecture import Architecture
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Normalization
from stillhouse.contract.spec.training import Training


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


class TrainTeacher(Section):
    """Train this architecture on the labels first, then distil it."""

    kind: Literal["train"] = "train"
    architecture: Architecture = Field(description="What is trained.")
    training: Training = Field(default=Training(), description="How the teacher is trained.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="For the teacher's own cross-entropy.")


Teacher = Annotated[CheckpointTeacher | TrainTeacher, Field(discriminator="kind")]
