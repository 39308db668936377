"""Directions of features, as in DistilBERT (Sanh et al., 2019)."""

from collections.abc import Sequence

from torch import Tensor, nn

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import at_one_size, channel_axis, directions, mean_over_pairs
from worker.engine.objectives.projection import MAP, TOKENS, VECTOR, match_pairs, project
from worker.engine.objectives.views import Shapes, Views


class Cosine(nn.Module):
    """1 - cos(projected student, teacher) over the channels of each position, mean over items, positions and pairs.

    A vector of length 0 counts as at a right angle to every other.
    """

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair], projection: str) -> None:
        super().__init__()
        self._pairs = pairs
        matches = match_pairs(pairs, shapes, read=(VECTOR, TOKENS, MAP))
        self.projections = nn.ModuleList(project(projection, match) for match in matches)

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar."""
        pairs = zip(self.projections, views.pairs(self._pairs), strict=True)
        return mean_over_pairs(_distance(projection, *pair) for projection, pair in pairs)


def _distance(projection: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = at_one_size(student, teacher)
    axis = channel_axis(student)
    return 1 - (directions(projection(student), axis) * directions(teacher, axis)).sum(axis).mean()
