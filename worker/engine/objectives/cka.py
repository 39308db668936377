"""Linear centred kernel alignment (Kornblith et al., 2019)."""

from collections.abc import Sequence

from torch import Tensor

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import directions, mean_over_pairs, nothing_to_compare, pooled
from worker.engine.objectives.views import Views


def cka(views: Views, *, pairs: Sequence[LayerPair]) -> Tensor:
    """1 - |X'Y|^2 / (|X'X| |Y'Y|) of the batch's centred vectors, mean over pairs; a scalar. 0 for fewer than 2 items.

    1 where all items of either are the same.
    """
    return mean_over_pairs(_misalignment(pooled(student), pooled(teacher)) for student, teacher in views.pairs(pairs))


def _misalignment(student: Tensor, teacher: Tensor) -> Tensor:
    if len(student) < 2:  # noqa: PLR2004 - one item is its own centre
        return nothing_to_compare(student)
    return 1 - (_kernel(student) * _kernel(teacher)).sum()


def _kernel(vectors: Tensor) -> Tensor:
    """Inner products of all items, (B * B,), at length 1: |X'Y|^2 is the product of the kernels XX' and YY'."""
    centred = vectors - vectors.mean(0)
    return directions((centred @ centred.mT).flatten(), 0)
