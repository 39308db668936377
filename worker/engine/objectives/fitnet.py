"""Hints: regression on the teacher's features (Romero et al., 2015)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import at_one_size, mean_over_pairs
from worker.engine.objectives.projection import MAP, TOKENS, VECTOR, match_pairs, project
from worker.engine.objectives.views import Shapes, Views


class Fitnet(nn.Module):
    """(projected student - teacher)^2, mean over items, channels, positions and pairs; a scalar."""

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair], projection: str) -> None:
        super().__init__()
        self._pairs = pairs
        matches = match_pairs(pairs, shapes, read=(VECTOR, TOKENS, MAP))
        self.projections = nn.ModuleList(project(projection, match) for match in matches)

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs."""
        pairs = zip(self.projections, views.pairs(self._pairs), strict=True)
        return mean_over_pairs(_difference(project_, *pair) for project_, pair in pairs)


def _difference(projection: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    # Averages commute with a linear map of the channels, and are cheaper before it.
    student, teacher = at_one_size(student, teacher)
    return functional.mse_loss(projection(student), teacher)
