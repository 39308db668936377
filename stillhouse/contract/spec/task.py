"""What the models are for."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.base import Section


class ImageClassification(Section):
    """One label per image."""

    kind: Literal["image_classification"] = "image_classification"


class TabularClassification(Section):
    """One label per row of a table of numbers."""

    kind: Literal["tabular_classification"] = "tabular_classification"


Task = Annotated[ImageClassification | TabularClassification, Field(discriminator="kind")]
