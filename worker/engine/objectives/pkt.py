"""Probabilistic knowledge transfer (Passalis and Tefas, 2018)."""

from collections.abc import Sequence

from torch import Tensor

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import directions, mean_over_pairs, nothing_to_compare, pooled
from worker.engine.objectives.views import Views

# As the published code has it, beside lengths and beside chances: no logarithm is infinite.
SLACK = 1e-7


def pkt(views: Views, *, pairs: Sequence[LayerPair]) -> Tensor:
    """Divergence p log(p / q) of the chances to be neighbours, mean over B^2 and pairs, in nats; a scalar.

    0 for fewer than 2 items.
    """
    return mean_over_pairs(_divergence(pooled(student), pooled(teacher)) for student, teacher in views.pairs(pairs))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    if len(student) < 2:  # noqa: PLR2004 - one item has no neighbour
        return nothing_to_compare(student)
    taught, learned = _chances(teacher), _chances(student)
    return (taught * ((taught + SLACK) / (learned + SLACK)).log()).mean()


def _chances(vectors: Tensor) -> Tensor:
    """Chance (B, B) of each item to be the neighbour of that of the row, by (1 + cos) / 2."""
    unit = directions(vectors, 1, slack=SLACK)
    alike = (1 + unit @ unit.mT) / 2
    return alike / alike.sum(1, keepdim=True)
