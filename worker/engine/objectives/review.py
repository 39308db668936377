"""Knowledge review (Chen et al., 2021)."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.failures import IncompatibleLayersError
from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import mean_over_pairs, nothing_to_compare
from worker.engine.objectives.projection import MAP, MAPS_AXES, VECTOR, Match, match_pairs
from worker.engine.objectives.views import Shapes, Views

MAX_WIDTH = 512  # channels in which stages are fused
GRIDS = (4, 2, 1)  # sizes to which maps are averaged besides their own, each of half the weight of the one before


class Review(nn.Module):
    """Each stage of the teacher against that stage of the student fused with all deeper ones; mean over stages.

    Pairs go from shallow to deep; vectors are maps of one position. 0 for fewer than 2 items, over which nothing can be
    normalised.
    """

    def __init__(self, *, shapes: Shapes, pairs: Sequence[LayerPair]) -> None:
        super().__init__()
        self._pairs = pairs
        *shallower, deepest = _pyramid(pairs, shapes)
        width = min(MAX_WIDTH, deepest.student[0])
        self.fusions = nn.ModuleList(Fusion(stage, width, is_deepest=False) for stage in shallower)
        self.fusions.append(Fusion(deepest, width, is_deepest=True))

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar."""
        stages = [(_mapped(student), _mapped(teacher)) for student, teacher in views.pairs(self._pairs)]
        if len(stages[0][0]) < 2:  # noqa: PLR2004 - one item has no spread
            return nothing_to_compare(torch.cat([student.flatten() for student, _ in stages]))
        fused = self._fused([student for student, _ in stages])
        return mean_over_pairs(
            context_loss(student, teacher) for student, (_, teacher) in zip(fused, reversed(stages), strict=True)
        )

    def _fused(self, stages: Sequence[Tensor]) -> Iterator[Tensor]:
        """From deep to shallow, each stage with what the deeper ones said, in the teacher's shape."""
        deeper: Tensor | None = None
        for fusion, stage in zip(reversed(self.fusions), reversed(stages), strict=True):
            output, deeper = fusion(stage, deeper)
            yield output


class Fusion(nn.Module):
    """One stage of the student and the fused deeper ones, weighed against each other at each position."""

    def __init__(self, match: Match, width: int, *, is_deepest: bool) -> None:
        super().__init__()
        self._size = match.teacher[1:]
        self.narrow = _normalized(match.student[0], width, kernel_size=1)
        self.attention = None if is_deepest else nn.Conv2d(2 * width, 2, kernel_size=1)
        self.widen = _normalized(width, match.teacher[0], kernel_size=3)

    def forward(self, stage: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The stage in the teacher's shape, and what shallower stages are fused with: (N, width, height, width)."""
        fused = self.narrow(stage)
        if self.attention is not None and deeper is not None:
            deeper = functional.interpolate(deeper, fused.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid()
            fused = fused * shares[:, :1] + deeper * shares[:, 1:]
        if fused.shape[2:] != self._size:
            fused = functional.interpolate(fused, self._size, mode="nearest")
        return self.widen(fused), fused


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference at full size and of averages over coarser grids, weighed 1, 1/2, 1/4, 1/8 over their sum."""
    height, width = student.shape[2:]
    sizes = [(min(grid, height), min(grid, width)) for grid in GRIDS if grid < max(height, width)]
    total, weights, weight = functional.mse_loss(student, teacher), 1.0, 1.0
    for size in sizes:
        weight /= 2
        weights += weight
        coarse, taught = (functional.adaptive_avg_pool2d(features, size) for features in (student, teacher))
        total = total + weight * functional.mse_loss(coarse, taught)
    return total / weights


def _normalized(width_in: int, width_out: int, *, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width_out, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out))


def _pyramid(pairs: Sequence[LayerPair], shapes: Shapes) -> list[Match]:
    """The stages as maps, from shallow to deep. Raises IncompatibleLayersError where one is larger than that before."""
    stages = [_as_map(match) for match in match_pairs(pairs, shapes, read=(MAP, VECTOR))]
    for shallow, deep in pairwise(stages):
        _check_order("student", shallow.student, deep.student, deep.pointer)
        _check_order("teacher", shallow.teacher, deep.teacher, deep.pointer)
    return stages


def _check_order(side: str, shallow: tuple[int, ...], deep: tuple[int, ...], pointer: str) -> None:
    if any(after > before for before, after in zip(shallow[1:], deep[1:], strict=True)):
        raise IncompatibleLayersError(
            f"the {side}'s layers grow from {list(shallow[1:])} to {list(deep[1:])} positions; give the pairs from "
            "shallow to deep, so that none is larger than the one before", param=pointer,
        )


def _as_map(match: Match) -> Match:
    if match.axes == MAP:
        return match
    return Match((*match.student, 1, 1), (*match.teacher, 1, 1), match.pointer)


def _mapped(features: Tensor) -> Tensor:
    return features if features.ndim == MAPS_AXES else features[:, :, None, None]
