"""Neuron selectivity transfer with the polynomial kernel of degree 2 (Huang and Wang, 2017)."""

from collections.abc import Sequence

from torch import Tensor, nn

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import at_one_size, channels_first, directions, mean_over_pairs
from worker.engine.objectives.projection import MAP, TOKENS, match_pairs
from worker.engine.objectives.views import Shapes, Views


class Nst(nn.Module):
    """Squared maximum mean discrepancy of the channels' patterns, mean over items and pairs; learns nothing."""

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair]) -> None:
        super().__init__()
        match_pairs(pairs, shapes, read=(MAP, TOKENS))
        self._pairs = pairs

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar."""
        return mean_over_pairs(discrepancy(*pair) for pair in views.pairs(self._pairs))


def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean k(t, t) + mean k(s, s) - 2 mean k(s, t) over items and pairs of channels, k(x, y) = (x.y)^2."""
    student, teacher = (directions(channels_first(features), 2) for features in at_one_size(student, teacher))
    return _mean_kernel(teacher, teacher) + _mean_kernel(student, student) - 2 * _mean_kernel(student, teacher)


def _mean_kernel(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean of (x.y)^2 over items and channels of (N, C, positions) and (N, D, positions)."""
    if ours.shape[2] >= min(ours.shape[1], theirs.shape[1]):
        return (ours @ theirs.mT).square().mean()
    # The same sum by position: as tr(A B) of second moments, where that is smaller than channels by channels.
    moments = [features.mT @ features / features.shape[1] for features in (ours, theirs)]
    return (moments[0] * moments[1]).sum() / len(ours)
