"""When the teacher is asked: once for each sample, once for each of several views, or at every step."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.base import Section


class AutoSoftLabels(Section):
    """Once for each sample, where nothing is augmented. Else at every step, unless storing views halves the work.

    With augmentation as many views are stored as make the job's training half as much work as asking the teacher at
    every step, if these are 8 or more and take at most 4 GiB. Work is counted in operations, not timed: the views
    decide the weights.
    """

    kind: Literal["auto"] = "auto"


class OnlineSoftLabels(Section):
    """At every step, about the batch as the student sees it; nothing is stored."""

    kind: Literal["online"] = "online"


class ViewedSoftLabels(Section):
    """Once for each sample as each of so many views shows it; epoch e replays view e modulo their number."""

    kind: Literal["views"] = "views"
    views: int = Field(
        ge=1, le=10_000,
        description="Augmentations of each sample that the student sees, in turn, one per epoch. 1 without "
        "augmentation.",
    )


SoftLabels = Annotated[AutoSoftLabels | OnlineSoftLabels | ViewedSoftLabels, Field(discriminator="kind")]
