"""The validation split, held out from the training split."""

import torch
from torch import Tensor

from stillhouse.contract.failures import SplitTooSmallError
from worker.engine.seeds import derive_seed


def hold_out(
    num_samples: int, labels: Tensor | None, *, fraction: float, seed: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positions of the training and the validation samples, each ascending; by class where there are labels.

    Every class keeps its share to within one sample, and at least one sample to train on; so do the samples without a
    label (where `mask` is False) together. A sample of several labels (N, L) counts for its rarest one.
    Raises SplitTooSmallError when nothing could be held out.
    """
    shuffle = torch.randperm(num_samples, generator=torch.Generator().manual_seed(derive_seed(seed, "holdout")))
    groups = _groups(num_samples, labels, mask)[shuffle]
    # Stable: within a class the samples stay in their random order.
    order = groups.argsort(stable=True)
    counts = torch.bincount(groups)
    firsts = counts.cumsum(0) - counts
    ranks = torch.arange(num_samples) - firsts[groups[order]]
    held = shuffle[order][ranks < _shares(counts, fraction)[groups[order]]]
    if len(held) == 0:
        raise SplitTooSmallError(
            f"{num_samples} training samples are too few to hold out {fraction:.0%} for validation; "
            "give data.validation or more samples",
            param="/data/train",
        )
    is_held = torch.zeros(num_samples, dtype=torch.bool)
    is_held[held] = True
    return (~is_held).nonzero().squeeze(1), is_held.nonzero().squeeze(1)


def _groups(num_samples: int, labels: Tensor | None, mask: Tensor | None) -> Tensor:
    """Classes numbered without gaps: labels are not checked yet, and may be negative or huge."""
    if labels is None:
        return torch.zeros(num_samples, dtype=torch.int64) if mask is None else mask.long()
    numbers: Tensor = (_rarest(labels) if labels.ndim > 1 else labels).unique(return_inverse=True)[1]
    return numbers if mask is None else torch.where(mask, numbers + 1, 0).unique(return_inverse=True)[1]


def _rarest(labels: Tensor) -> Tensor:
    """Of the labels that apply to each sample (N, L) the one that fewest samples have; L where none applies."""
    applies = labels > 0
    counts = applies.sum(dim=0)
    candidates = torch.where(applies, counts, len(labels) + 1)
    return torch.where(applies.any(dim=1), candidates.argmin(dim=1), labels.shape[1])


def _shares(counts: Tensor, fraction: float) -> Tensor:
    """How many of each class to hold out: rounded down, then one more for the largest remainders."""
    exact = counts.double() * fraction
    shares = exact.floor().long()
    missing = round(fraction * int(counts.sum())) - int(shares.sum())
    if missing > 0:
        shares[(exact - shares).argsort(descending=True, stable=True)[:missing]] += 1
    return shares.minimum((counts - 1).clamp(min=0))
