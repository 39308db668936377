"""Model families that are built in: by name and plain numbers. Implemented in `stillhouse.models`."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stillhouse.contract.spec.base import Section

Width = Annotated[int, Field(ge=1, le=65_536)]


def _six_n_plus(offset: int) -> Callable[[int], int]:
    def check(depth: int) -> int:
        below = depth - (depth - offset) % 6
        if below != depth:
            raise ValueError(f"depth {depth} is not 6n + {offset}; the nearest are {below} and {below + 6}")
        return depth

    return check


class Fitted(Section):
    """What every architecture is told about the data that it is for."""

    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000,
        description="Width of the output: classes, labels, targets or dimensions. Taken from the data when left out.",
    )
    input_shape: list[Annotated[int, Field(ge=1, le=65_536)]] | None = Field(
        default=None, min_length=1, max_length=3,
        description="Shape of one input: [channels, height, width] or [columns]. Taken from the data when left out.",
    )


class _Plain(Fitted):
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Probability of dropping a hidden unit in training.")
    activation: Literal["relu", "gelu", "silu"] = Field(default="relu", description="Non-linearity.")


class Mlp(_Plain):
    """Fully connected layers; an image is flattened first."""

    kind: Literal["mlp"] = "mlp"
    hidden: list[Width] = Field(
        default=[64], max_length=32, description="Units of each hidden layer; an empty list is a linear model."
    )
    batch_norm: bool = Field(default=False, description="Batch normalisation before each activation.")


class Cnn(_Plain):
    """Stages of 3x3 convolutions, each followed by a 2x2 max pool, then global average pool and a linear layer."""

    kind: Literal["cnn"] = "cnn"
    channels: list[Width] = Field(
        default=[16, 32], min_length=1, max_length=8, description="Channels of each stage."
    )
    blocks_per_stage: int = Field(default=1, ge=1, le=16, description="Convolutions in each stage.")
    batch_norm: bool = Field(default=True, description="Batch normalisation before each activation.")
    hidden: Width | None = Field(
        default=None, description="Units of a hidden layer between the pooled features and the output."
    )


class Resnet(Fitted):
    """The residual network for small images: a 3x3 stem, three stages of two-convolution blocks, global average pool.

    resnet20, 32, 56 and 110 of the literature on CIFAR are these depths; resnet8x4 is depth 8, stem 32, channels
    [64, 128, 256], and resnet32x4 the same at depth 32. Tensors have the names that are usual for them.
    """

    kind: Literal["resnet"] = "resnet"
    depth: Annotated[int, AfterValidator(_six_n_plus(2))] = Field(
        default=20, ge=8, le=1202, description="Layers: 6n + 2 for n blocks in each stage."
    )
    channels: list[Width] = Field(
        default=[16, 32, 64], min_length=3, max_length=3, description="Channels of each of the three stages."
    )
    stem: Width | None = Field(
        default=None, description="Channels of the first convolution; those of the first stage when left out."
    )


class Wrn(Fitted):
    """A wide residual network: normalisation before each convolution, three stages of 16, 32 and 64 times a factor.

    wrn_40_2 of the literature on CIFAR is depth 40, widen_factor 2. Tensors have the names that are usual for it.
    """

    kind: Literal["wrn"] = "wrn"
    depth: Annotated[int, AfterValidator(_six_n_plus(4))] = Field(
        default=16, ge=10, le=1204, description="Layers: 6n + 4 for n blocks in each stage."
    )
    widen_factor: int = Field(default=2, ge=1, le=64, description="Factor of the channels of each stage.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability of dropping a value between the convolutions of a block."
    )
