"""What the teacher is distilled into."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.architecture import AnyArchitecture, Keep
from stillhouse.contract.spec.base import Section


class Layers(Section):
    """The teacher itself with fewer layers. Needs a teacher of kind checkpoint or train."""

    kind: Literal["layers"] = "layers"
    keep: Keep = Field(
        description="Dotted path of an nn.Sequential or nn.ModuleList of the teacher -> indices of the layers that "
        "stay, in order. Containers that are not named stay whole.",
        examples=[{"layer1": [0], "layer2": [0]}, {"blocks": [0, 3, 6, 9]}],
    )
    initialize: bool = Field(
        default=True, description="Whether the student begins with the teacher's weights, else with random ones."
    )


class Pruned(Section):
    """The teacher itself with fewer channels, taken out by structural pruning. Then the whole teacher teaches it.

    Needs a teacher of kind checkpoint or train. Every layer loses about the same share of its channels; attention
    keeps its heads.
    """

    kind: Literal["pruned"] = "pruned"
    ratio: float = Field(default=0.5, ge=0.01, le=0.99, description="Share that remains.")
    of: Literal["macs", "parameters"] = Field(
        default="macs", description="What the ratio is of: multiply-accumulate operations, or parameters."
    )
    importance: Literal["magnitude", "batch_norm"] = Field(
        default="magnitude",
        description="Which channels go first: those whose weights are small in all layers that share them, or those "
        "that batch normalisation scales down most.",
    )
    round_to: int = Field(default=8, ge=1, le=256, description="Channels stay a multiple of this, for speed.")


DerivedStudent = Layers | Pruned
Student = Annotated[AnyArchitecture | DerivedStudent, Field(discriminator="kind")]
