"""Variational information distillation (Ahn et al., 2019)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import TOKENS_AXES, at_one_size, mean_over_pairs
from worker.engine.objectives.projection import MAP, TOKENS, VECTOR, Match, linear, match_pairs
from worker.engine.objectives.views import Shapes, Views

LEAST_VARIANCE = 1e-5


class Vid(nn.Module):
    """-log of a learned normal density of the teacher's features given the student's, without the constant; in nats.

    Mean over items, channels, positions and pairs.
    """

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair], initial_variance: float) -> None:
        super().__init__()
        self._pairs = pairs
        matches = match_pairs(pairs, shapes, read=(VECTOR, TOKENS, MAP))
        self.densities = nn.ModuleList(Density(match, initial_variance) for match in matches)

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar."""
        pairs = zip(self.densities, views.pairs(self._pairs), strict=True)
        return mean_over_pairs(density(*at_one_size(*pair)) for density, pair in pairs)


class Density(nn.Module):
    """A normal density: its mean a network of the student's channels, its variance one number of each channel."""

    def __init__(self, match: Match, initial_variance: float) -> None:
        super().__init__()
        student, teacher = match.widths
        widths = ((student, teacher), (teacher, teacher), (teacher, teacher))
        first, second, third = (linear(match.axes, *pair) for pair in widths)
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.softened_variance = nn.Parameter(torch.full((teacher,), _inverse_softplus(initial_variance)))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Half of squared error over variance plus log variance, mean over all; a scalar."""
        variance = functional.softplus(self.softened_variance) + LEAST_VARIANCE
        if teacher.ndim > TOKENS_AXES:
            variance = variance[:, None, None]
        error: Tensor = self.mean(student) - teacher
        return (error.square() / variance + variance.log()).mean() / 2


def _inverse_softplus(variance: float) -> float:
    above = variance - LEAST_VARIANCE
    return above + math.log(-math.expm1(-above))
