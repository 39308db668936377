"""Similarity-preserving distillation (Tung and Mori, 2019)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import directions, mean_over_pairs, nothing_to_compare
from worker.engine.objectives.views import Views


def sp(views: Views, *, pairs: Sequence[LayerPair]) -> Tensor:
    """Squared difference of the items' similarities, mean over B^2 and pairs; a scalar. 0 for fewer than 2 items.

    Similarities are inner products of flattened features, each row at length 1.
    """
    return mean_over_pairs(_difference(*(features.flatten(1) for features in pair)) for pair in views.pairs(pairs))


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    if len(student) < 2:  # noqa: PLR2004 - one item has none to be alike
        return nothing_to_compare(student)
    return functional.mse_loss(directions(student @ student.mT, 1), directions(teacher @ teacher.mT, 1))
