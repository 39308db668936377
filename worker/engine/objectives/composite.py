"""The objective of a spec: a weighted sum of terms."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor

from stillhouse.contract.spec import Objective, Term
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse
from worker.engine.objectives.views import Views

# The fields of a term's spec class, but for `kind` and `weight`, are the keyword arguments of its function.
OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {"kl": kl, "cross_entropy": cross_entropy, "mse": mse}


class Weighted(NamedTuple):
    """A term that counts."""

    name: str
    weight: float
    function: Callable[[Views], Tensor]


class Loss:
    """The weighted sum of the terms whose weight is above 0."""

    def __init__(self, objective: Objective) -> None:
        self.needs_teacher = objective.needs_teacher
        self.needs_labels = objective.needs_labels
        self._terms = [_weighted(term) for term in objective.terms if term.weight > 0]

    @property
    def names(self) -> list[str]:
        """Names of the sum and of each term, as they are logged."""
        return ["loss", *(f"loss.{term.name}" for term in self._terms)]

    def __call__(self, views: Views) -> list[Tensor]:
        """Scalars in the order of `names`: the sum, to call backward on, then each term without its weight."""
        values = [term.function(views) for term in self._terms]
        return [self._sum(values), *values]

    def _sum(self, values: Sequence[Tensor]) -> Tensor:
        total = values[0] * self._terms[0].weight
        for term, value in zip(self._terms[1:], values[1:], strict=True):
            total = total.add(value, alpha=term.weight)
        return total


def _weighted(term: Term) -> Weighted:
    arguments = term.model_dump(exclude={"kind", "weight"})
    return Weighted(term.kind, term.weight, partial(OBJECTIVES[term.kind], **arguments))
