"""What a model is made of: a built-in family, a model of a library, or one of these made shorter or narrower."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stillhouse.contract.spec.base import Section
from stillhouse.contract.spec.families import Cnn, Mlp, Resnet, Wrn
from stillhouse.contract.spec.libraries import Timm, Torchvision, Transformers
from stillhouse.contract.spec.term import LayerPath

MAX_DERIVATIONS = 8


def _check_ascending(indices: list[int]) -> list[int]:
    if any(after <= before for before, after in pairwise(indices)):
        raise ValueError(f"the indices {indices} do not ascend; name each layer once, in order")
    return indices


Indices = Annotated[
    list[Annotated[int, Field(ge=0, le=4095)]], Field(min_length=1, max_length=4096), AfterValidator(_check_ascending)
]
Keep = Annotated[dict[LayerPath, Indices], Field(min_length=1, max_length=64)]
Sizes = Annotated[list[Annotated[int, Field(ge=1, le=16_777_216)]], Field(min_length=1, max_length=8)]


class _Derived(Section):
    base: "Architecture" = Field(description="The model that it was derived from.")

    @property
    def num_classes(self) -> int | None:
        """Width of the output."""
        return self.base.num_classes

    @property
    def input_shape(self) -> list[int] | None:
        """Shape of one input."""
        return self.base.input_shape

    @model_validator(mode="after")
    def _is_not_too_deep(self) -> Self:
        if num_derivations(self) > MAX_DERIVATIONS:  # type: ignore[arg-type]  # self is one of its two subclasses
            raise ValueError(f"a model can be derived from another at most {MAX_DERIVATIONS} times")
        return self


class Shortened(_Derived):
    """A model of which some containers keep only some of their layers, numbered anew from 0."""

    kind: Literal["shortened"] = "shortened"
    keep: Keep = Field(
        description="Dotted path of an nn.Sequential or nn.ModuleList of the base -> indices of the layers that stay."
    )


class Narrowed(_Derived):
    """A model of which some layers have fewer channels. Written by structural pruning."""

    kind: Literal["narrowed"] = "narrowed"
    widths: dict[LayerPath, Sizes] = Field(
        min_length=1, max_length=16_384,
        description="Dotted path of a layer of the base -> its sizes: [in, out, groups] of a convolution, [in, out] of "
        "a linear layer, [channels] of a normalisation; of a bare parameter its shape.",
    )


NamedArchitecture = Mlp | Cnn | Resnet | Wrn | Timm | Torchvision | Transformers
AnyArchitecture = NamedArchitecture | Shortened | Narrowed
Architecture = Annotated[AnyArchitecture, Field(discriminator="kind")]

Shortened.model_rebuild()
Narrowed.model_rebuild()


def named_base(architecture: AnyArchitecture) -> NamedArchitecture:
    """The model of which all was derived."""
    while isinstance(architecture, Shortened | Narrowed):
        architecture = architecture.base
    return architecture


def num_derivations(architecture: AnyArchitecture) -> int:
    """How many times it was made shorter or narrower."""
    count = 0
    while isinstance(architecture, Shortened | Narrowed):
        architecture, count = architecture.base, count + 1
    return count
