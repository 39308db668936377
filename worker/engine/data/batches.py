"""Which samples each step sees."""

import torch
from torch import Tensor

from worker.engine.seeds import derive_seed

EPOCHS_KEPT = 2  # whoever looks ahead goes to and fro between two


class Batches:
    """A pure function of seed and step: the ids of the step's samples, each epoch in an order of its own.

    An epoch's last samples that do not fill a batch are left out; which ones, differs from epoch to epoch. With
    `classes`, one number per id, every class is drawn equally often: an epoch has as many draws as there are samples,
    repeats those of rare classes and leaves out some of frequent ones. Samples of class -1 have no label and are drawn
    once.
    """

    def __init__(self, ids: Tensor, *, batch_size: int, seed: int, classes: Tensor | None = None) -> None:
        self.batch_size = min(batch_size, len(ids))
        self.steps_per_epoch = len(ids) // self.batch_size
        self._ids = ids
        self._seed = seed
        self._classes = None if classes is None else classes.cpu()
        self._epochs: dict[int, tuple[Tensor, ...]] = {}

    def epoch(self, step: int) -> int:
        """The epoch that the step belongs to, from 0."""
        return step // self.steps_per_epoch

    def __call__(self, step: int) -> Tensor:
        """Sample ids (batch_size,) of the step, int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch not in self._epochs:
            if len(self._epochs) == EPOCHS_KEPT:
                del self._epochs[max(self._epochs, key=lambda kept: abs(kept - epoch))]
            self._epochs[epoch] = self._shuffle(epoch)
        return self._epochs[epoch][place]

    def _shuffle(self, epoch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(len(self._ids), generator=generator)
        if self._classes is not None:
            order = balance(self._classes, order, generator)
        return torch.split(self._ids[order.to(self._ids.device)], self.batch_size)


def balance(classes: Tensor, order: Tensor, generator: torch.Generator) -> Tensor:
    """Places (N,) of samples, drawn so that each class comes equally often to within one, in random order.

    `order` is a permutation of all places: it decides which samples of a frequent class come, and which of a rare one
    come once more than others. Those of class -1 come once each.
    """
    labelled = order[classes[order] >= 0]
    if len(labelled) == 0:
        return order
    numbers, groups, counts = classes[labelled].unique(return_inverse=True, return_counts=True)
    # Which classes get the draws that are left over, differs from epoch to epoch.
    quotas = torch.full_like(counts, len(labelled) // len(numbers))
    quotas[torch.randperm(len(numbers), generator=generator)[:len(labelled) % len(numbers)]] += 1
    by_class = labelled[groups.argsort(stable=True)]
    firsts = counts.cumsum(0) - counts
    drawn_class = torch.arange(len(numbers)).repeat_interleave(quotas)
    ranks = torch.arange(len(labelled)) - (quotas.cumsum(0) - quotas)[drawn_class]
    drawn = by_class[firsts[drawn_class] + ranks % counts[drawn_class]]
    whole = torch.cat([drawn, order[classes[order] < 0]])
    return whole[torch.randperm(len(whole), generator=generator)]
