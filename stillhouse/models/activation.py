"""Non-linearities by name."""

from collections.abc import Callable, Mapping

from torch import nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
