"""With how many bits a training computes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

PrecisionName = Literal["float32", "bfloat16", "float64"]


@dataclass(frozen=True)
class Precision:
    """Weights are float32, or float64 where asked; `bfloat16` computes products in half the bits, sums in float32."""

    name: PrecisionName
    device: str

    @property
    def forward(self) -> Callable[[], AbstractContextManager[None]]:
        """What a forward pass runs within."""
        if self.name != "bfloat16":
            return nullcontext
        return partial(torch.autocast, self.device.partition(":")[0], dtype=torch.bfloat16)

    def place(self, model: nn.Module) -> nn.Module:
        """The model with weights of this precision."""
        return model.double() if self.name == "float64" else model

    def inputs(self, inputs: Tensor) -> Tensor:
        """Inputs as the weights need them."""
        return inputs.double() if self.name == "float64" else inputs
