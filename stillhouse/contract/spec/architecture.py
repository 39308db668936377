"""Built-in model families, by name and plain numbers. Implemented in `stillhouse.models`."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.base import Section

Width = Annotated[int, Field(ge=1, le=65_536)]


class _Architecture(Section):
    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000,
        description="Width of the output: classes, labels, targets or dimensions. Taken from the data when left out.",
    )
    input_shape: list[Annotated[int, Field(ge=1, le=65_536)]] | None = Field(
        default=None, min_length=1, max_length=3,
        description="Shape of one input: [channels, height, width] or [columns]. Taken from the data when left out.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Probability of dropping a hidden unit in training.")
    activation: Literal["relu", "gelu", "silu"] = Field(default="relu", description="Non-linearity.")


class Mlp(_Architecture):
    """Fully connected layers; an image is flattened first."""

    kind: Literal["mlp"] = "mlp"
    hidden: list[Width] = Field(
        default=[64], max_length=32, description="Units of each hidden layer; an empty list is a linear model."
    )
    batch_norm: bool = Field(default=False, description="Batch normalisation before each activation.")


class Cnn(_Architecture):
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


Architecture = Annotated[Mlp | Cnn, Field(discriminator="kind")]
