"""Which samples each step sees."""

import torch
from torch import Tensor

from worker.engine.seeds import derive_seed


class Batches:
    """A pure function of seed and step: the ids of the step's samples, each epoch in an order of its own.

    An epoch's last samples that do not fill a batch are left out; which ones, differs from epoch to epoch.
    """

    def __init__(self, ids: Tensor, *, batch_size: int, seed: int) -> None:
        self.batch_size = min(batch_size, len(ids))
        self.steps_per_epoch = len(ids) // self.batch_size
        self._ids = ids
        self._seed = seed
        self._epoch = -1
        self._parts: tuple[Tensor, ...] = ()

    def epoch(self, step: int) -> int:
        """The epoch that the step belongs to, from 0."""
        return step // self.steps_per_epoch

    def __call__(self, step: int) -> Tensor:
        """Sample ids (batch_size,) of the step, int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._parts, self._epoch = self._shuffle(epoch), epoch
        return self._parts[place]

    def _shuffle(self, epoch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(len(self._ids), generator=generator)
        return torch.split(self._ids[order.to(self._ids.device)], self.batch_size)
