"""What the models are for. Whether their inputs are images or a table is a fact of the data, and no part of this."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.contract.spec.base import Section

Quality = Literal["accuracy", "average_precision", "r2", "cosine"]


class _Task(Section):
    quality: ClassVar[Quality]  # the score that tells how good a model is; better when higher
    outputs: ClassVar[str]  # what a model's outputs stand for, in the plural
    reads_labels: ClassVar[bool] = True


class Classification(_Task):
    """One class per sample. Labels are the numbers of the classes, one whole number per sample, from 0."""

    quality: ClassVar[Quality] = "accuracy"
    outputs: ClassVar[str] = "classes"

    kind: Literal["classification"] = "classification"


class MultiLabel(_Task):
    """Any number of labels per sample. They are a row of 0 and 1 per sample, one column for each label."""

    quality: ClassVar[Quality] = "average_precision"
    outputs: ClassVar[str] = "labels"

    kind: Literal["multi_label"] = "multi_label"
    threshold: float = Field(
        default=0.5, gt=0, lt=1,
        description="Probability from which on a label counts as true, in the scores and in the bundle's answers. "
        "Average precision does not depend on it.",
    )


class Regression(_Task):
    """Numbers per sample, one column for each target. They are learned in their own unit."""

    quality: ClassVar[Quality] = "r2"
    outputs: ClassVar[str] = "targets"

    kind: Literal["regression"] = "regression"


class Embedding(_Task):
    """A vector per sample, which is to lie where the teacher's lies. Labels are not read."""

    quality: ClassVar[Quality] = "cosine"
    outputs: ClassVar[str] = "dimensions"
    reads_labels: ClassVar[bool] = False

    kind: Literal["embedding"] = "embedding"


Task = Annotated[Classification | MultiLabel | Regression | Embedding, Field(discriminator="kind")]
