"""Attention transfer (Zagoruyko and Komodakis, 2017)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import at_one_size, channel_axis, directions, mean_over_pairs
from worker.engine.objectives.projection import MAP, TOKENS, match_pairs
from worker.engine.objectives.views import Shapes, Views


class At(nn.Module):
    """Squared difference of attention maps at length 1, mean over items, positions and pairs; learns nothing."""

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair], power: float) -> None:
        super().__init__()
        match_pairs(pairs, shapes, read=(MAP, TOKENS))
        self._pairs, self._power = pairs, power

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar."""
        return mean_over_pairs(self._difference(*pair) for pair in views.pairs(self._pairs))

    def _difference(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = at_one_size(student, teacher)
        return functional.mse_loss(attention(student, self._power), attention(teacher, self._power))


def attention(features: Tensor, power: float) -> Tensor:
    """Where features are strong: mean over channels of |features|^power, each item's map (N, positions) at length 1."""
    return directions(features.abs().pow(power).mean(channel_axis(features)).flatten(1), 1)
