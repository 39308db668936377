"""With how many bits a training computes, and in which order its images lie in memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Wide = TypeVar("Wide", bound=nn.Module)

PrecisionName = Literal["float32", "bfloat16", "float64"]
MemoryFormat = Literal["channels_last", "contiguous"]


@dataclass(frozen=True)
class Numerics:
    """Weights are float32, or float64 where asked; `bfloat16` computes products in half the bits, sums in float32."""

    precision: PrecisionName
    memory_format: MemoryFormat
    device: str

    @property
    def forward(self) -> Callable[[], AbstractContextManager[None]]:
        """What a forward pass runs within."""
        if self.precision != "bfloat16":
            return nullcontext
        return partial(torch.autocast, _kind(self.device), dtype=torch.bfloat16)

    def facts(self) -> dict[str, str]:
        """What a checkpoint keeps of it: resuming must compute alike."""
        return {"precision": self.precision, "memory_format": self.memory_format}

    def place(self, model: nn.Module) -> nn.Module:
        """The model with weights of this precision and order; its last layer computes in float32 at least."""
        if self.memory_format == "contiguous":
            model = model.to(memory_format=torch.contiguous_format)
        if self.precision == "float64":
            return model.double()
        if self.precision == "bfloat16":
            _widen_last_layer(model, _kind(self.device))
        return model

    def widen(self, loss: Wide) -> Wide:
        """The objective with what it learns as wide as the weights."""
        return loss.double() if self.precision == "float64" else loss

    def inputs(self, inputs: Tensor) -> Tensor:
        """Inputs as the weights need them."""
        return inputs.double() if self.precision == "float64" else inputs


def has_fast_bfloat16(device: str) -> bool:
    """Whether the device multiplies half-precision numbers in hardware."""
    if _kind(device) == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - there is no public one


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _widen_last_layer(model: nn.Module, kind: str) -> None:
    """Leave autocast for the last linear layer: logits of 8 bits would be too coarse for soft labels."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        return
    # As hooks that know their module only as an argument, so that copies of the model have them too.
    layers[-1].register_forward_pre_hook(partial(_leave_autocast, kind))
    layers[-1].register_forward_hook(_return_to_autocast, always_call=True)


def _leave_autocast(kind: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    without = torch.autocast(kind, enabled=False)
    without.__enter__()
    vars(module)["_without_autocast"] = without
    return tuple(value.float() for value in inputs)


def _return_to_autocast(module: nn.Module, _inputs: object, _output: object) -> None:
    vars(module).pop("_without_autocast").__exit__(None, None, None)
