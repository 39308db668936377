"""Several processes that train one model, each on its share of every batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillhouse.contract.status import Request

Value = TypeVar("Value")

DECIDE_STEPS = 8  # asking the first process takes about as long as a small step


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together; one alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, ids: Tensor) -> Tensor:
        """The process's part of a batch whose size all of them divide."""
        return ids if self.size == 1 else ids.chunk(self.size)[self.rank]

    def together(self, module: nn.Module, *, reaches_all: bool = True) -> Callable[..., Any]:
        """The module, such that gradients are averaged over all processes on the way back.

        Buffers, batch statistics among them, are those of the first process. `reaches_all` tells whether every
        parameter gets a gradient at every step.
        """
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        return DistributedDataParallel(module, find_unused_parameters=not reaches_all)

    def agree(self, value: Value) -> Value:
        """What the first process says."""
        if self.size == 1:
            return value
        said: list[Any] = [value]
        dist.broadcast_object_list(said, src=0)
        return cast("Value", said[0])

    def decide(
        self, step: int, requested: Callable[[], Request | None], is_due: Callable[[], bool]
    ) -> tuple[Request | None, bool]:
        """Whether to stop, and whether to save: all processes at the same step."""
        if self.size > 1 and step % DECIDE_STEPS:
            return None, False
        return self.agree((requested(), is_due()))

    def gather(self, value: Value) -> Sequence[Value]:
        """Every process's value, in their order."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered


ALONE = Ranks()
