"""What every section of a job spec shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a job spec: unknown keys are refused, types are not guessed, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


ArtifactId = Annotated[
    str,
    Field(
        pattern=r"^art_[0-9a-z]{20}$",
        description="Id of an uploaded artifact, as POST /artifacts answered it.",
        examples=["art_4x2m9k7q1w8e5r6t3y0u"],
    ),
]
