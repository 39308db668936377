"""The objective of a spec: a weighted sum of terms."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.spec import Objective, Term
from stillhouse.contract.spec.term import BaseTerm, FeatureTerm, Ramp, TemperatureTerm, WarmUp
from worker.engine.memory import check_memory
from worker.engine.objectives.table import LEARNED, OBJECTIVES
from worker.engine.objectives.views import Shapes, Views

NO_SHAPES = Shapes({}, {}, 0, 0)
# Fields of a term that say how it is used; the others are the arguments of its function.
OF_USE = frozenset(TemperatureTerm.model_fields) - {"temperature"} | {"kind"}


class Weighted(NamedTuple):
    """A term that counts. Both functions take the share of the training that is done."""

    name: str
    weight: Callable[[float], float]
    value: Callable[[Views, float], Tensor]


class Loss(nn.Module):
    """The weighted sum of the terms whose weight is above 0. Its parameters are those of terms that learn."""

    def __init__(self, objective: Objective, shapes: Shapes = NO_SHAPES) -> None:
        super().__init__()
        self.needs_teacher = objective.needs_teacher
        self.needs_labels = objective.needs_labels
        # Paths of layers -> JSON pointer of the field that names each.
        self.student_layers, self.teacher_layers = layers(objective)
        # A list, for a name such as `type` would hide what a dictionary of modules is made of.
        self.learned = nn.ModuleList()
        self.relational_names = [term.name or term.kind for term in objective.active if term.compares_items]
        self._terms = [
            self._weighted(term, shapes, f"/objective/terms/{place}")
            for place, term in enumerate(objective.terms) if term.weight > 0
        ]

    @property
    def names(self) -> list[str]:
        """Names of the sum and of each term, as they are logged."""
        return ["loss", *(f"loss.{term.name}" for term in self._terms)]

    @property
    def share_names(self) -> list[str]:
        """Names of each term's share of the gradient, as they are logged."""
        return [f"gradient_share.{term.name}" for term in self._terms]

    def forward(self, views: Views, progress: float = 0.0) -> list[Tensor]:
        """Scalars in the order of `names`: the sum, to call backward on, then each term without its weight."""
        values = [term.value(views, progress) for term in self._terms]
        return [self._sum(values, progress), *values]

    def is_computable(self, *, has_labels: bool, has_teacher: bool) -> bool:
        """Whether the models' outputs are enough, with labels and teacher or without."""
        if self.student_layers:
            return False
        return (has_labels or not self.needs_labels) and (has_teacher or not self.needs_teacher)

    def gradient_shares(self, values: Sequence[Tensor], views: Views, progress: float) -> Tensor:
        """Each weighted term's share of the gradient that reaches the student, (num_terms,), adding up to 1.

        By 2-norm, at the student's outputs and at its layers that terms look at. `values` are those of `forward`; the
        graph stays for the backward pass that follows. All 0 where no term reaches the student.
        """
        reached = [outputs for outputs in (views.student, *views.features.values()) if outputs.requires_grad]
        norms = [
            term.weight(progress) * _pull(value, reached) for term, value in zip(self._terms, values[1:], strict=True)
        ]
        stacked = torch.stack(norms)
        return stacked / stacked.sum().clamp(min=torch.finfo(stacked.dtype).tiny)

    def _sum(self, values: Sequence[Tensor], progress: float) -> Tensor:
        total = values[0] * self._terms[0].weight(progress)
        for term, value in zip(self._terms[1:], values[1:], strict=True):
            total = total.add(value, alpha=term.weight(progress))
        return total

    def _weighted(self, term: Term, shapes: Shapes, pointer: str) -> Weighted:
        name = term.name or term.kind
        arguments = {field: getattr(term, field) for field in type(term).model_fields if field not in OF_USE}
        weight = _ramped(term.weight, term.weight_ramp)
        if term.kind in LEARNED:
            with _pointing_at(pointer):
                module = _made(partial(LEARNED[term.kind], shapes=shapes, **arguments))
            self.learned.append(module)
            return Weighted(name, weight, lambda views, _: module(views))
        return Weighted(name, weight, _function(OBJECTIVES[term.kind], term, arguments))


def layers(objective: Objective) -> tuple[dict[str, str], dict[str, str]]:
    """The student's and the teacher's layers that the objective looks at: path -> JSON pointer of a field naming it."""
    student: dict[str, str] = {}
    teacher: dict[str, str] = {}
    for place, term in enumerate(objective.terms):
        if isinstance(term, FeatureTerm) and term.weight > 0:
            for number, pair in enumerate(term.pairs):
                pointer = f"/objective/terms/{place}/pairs/{number}"
                student.setdefault(pair.student, f"{pointer}/student")
                teacher.setdefault(pair.teacher, f"{pointer}/teacher")
    return student, teacher


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    """The module. Raises OutOfMemoryError before it takes more memory than there is: widths come from the spec."""
    with torch.device("meta"):
        outline = make()
    parameters, buffers = (sum(each.nbytes for each in of) for of in (outline.parameters(), outline.buffers()))
    # A gradient and two moments beside each weight; a buffer is made in two steps.
    check_memory(4 * parameters + 2 * buffers, "what this term learns and remembers")
    return make()


@contextmanager
def _pointing_at(pointer: str) -> Iterator[None]:
    """A term knows its own fields only: what it says is wrong with one of them is told from the root of the spec."""
    try:
        yield
    except StillhouseError as error:
        raise type(error)(error.message, param=f"{pointer}{error.param or ''}") from error


def _function(
    made: Callable[..., Tensor], term: BaseTerm, arguments: Mapping[str, object]
) -> Callable[[Views, float], Tensor]:
    if isinstance(term, TemperatureTerm) and term.temperature_ramp is not None:
        temperature = _ramped(term.temperature, term.temperature_ramp)
        fixed = {field: value for field, value in arguments.items() if field != "temperature"}
        return lambda views, progress: made(views, temperature=temperature(progress), **fixed)
    function = partial(made, **arguments)
    return lambda views, _: function(views)


def _ramped(value: float, ramp: Ramp | None) -> Callable[[float], float]:
    if ramp is None:
        return lambda _: value
    if isinstance(ramp, WarmUp):
        return lambda progress: value * min(1.0, progress / ramp.fraction)
    if ramp.kind == "linear":
        return lambda progress: value * (ramp.start + (ramp.end - ramp.start) * progress)
    return lambda progress: value * (ramp.end + (ramp.start - ramp.end) * (1 + math.cos(math.pi * progress)) / 2)


def _pull(value: Tensor, reached: Sequence[Tensor]) -> Tensor:
    """2-norm of the gradient of a term at what it reaches; 0 where it reaches nothing, as with a frozen layer."""
    gradients = torch.autograd.grad(value, reached, retain_graph=True, allow_unused=True) if value.requires_grad else ()
    norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return torch.stack(norms).norm() if norms else torch.zeros((), device=value.device)
