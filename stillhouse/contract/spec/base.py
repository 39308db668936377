"""What every section of a job spec shares."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[str | int, ...]


class Section(BaseModel):
    """A part of a job spec: unknown keys are refused, types are not guessed, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def told_at(mistakes: Iterable[tuple[Place, str]]) -> None:
    """Raise a ValidationError with each mistake at its place, counted from the section that validates; none is fine.

    A section that compares others can so name the field that is wrong, where a ValueError would name itself.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{told}", {"told": told}), loc=place, input=None)
        for place, told in mistakes
    ]
    if details:
        raise ValidationError.from_exception_data("JobSpec", details)


ArtifactId = Annotated[
    str,
    Field(
        pattern=r"^art_[0-9a-z]{20}$",
        description="Id of an uploaded artifact, as POST /artifacts answered it.",
        examples=["art_4x2m9k7q1w8e5r6t3y0u"],
    ),
]
