"""What the student is trained to minimise: a weighted list of terms."""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import Section
from stillhouse.contract.spec.feature_terms import CosineDistance, LayerTerm
from stillhouse.contract.spec.logit_terms import (
    Bce,
    BinaryCrossEntropy,
    CrossEntropy,
    Kl,
    LogitTerm,
    Mse,
    SquaredError,
)
from stillhouse.contract.spec.term import FeatureTerm, TaskKind

Term = Annotated[LogitTerm | LayerTerm, Field(discriminator="kind")]


class Objective(Section):
    """The sum of its terms."""

    terms: list[Term] = Field(min_length=1, max_length=32, description="Terms of the loss, each logged by name.")

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if not self.active:
            raise ValueError("every weight is 0, so there is nothing to learn; give one term a weight above 0")
        names = [term.name or term.kind for term in self.terms]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"two terms are called {repeated}; give one of them a name of its own")
        return self

    @property
    def active(self) -> list[Term]:
        """The terms whose weight is above 0."""
        return [term for term in self.terms if term.weight > 0]

    @property
    def needs_labels(self) -> bool:
        """Whether a term with weight reads the labels."""
        return any(term.needs_labels for term in self.active)

    @property
    def needs_teacher(self) -> bool:
        """Whether a term with weight reads the teacher's outputs."""
        return any(term.needs_teacher for term in self.active)

    @property
    def needs_features(self) -> bool:
        """Whether a term with weight reads layers of the teacher, which no store of soft labels holds."""
        return any(isinstance(term, FeatureTerm) and term.pairs for term in self.active)


class _Usual(NamedTuple):
    """The first choices for a task."""

    soft: Sequence[Term]
    hard: type[CrossEntropy] | type[BinaryCrossEntropy] | type[SquaredError] | None


_USUAL: Mapping[TaskKind, _Usual] = {
    "classification": _Usual([Kl()], CrossEntropy),
    "multi_label": _Usual([Bce(temperature=1.0)], BinaryCrossEntropy),
    "regression": _Usual([Mse()], SquaredError),
    "embedding": _Usual([Mse(), CosineDistance()], None),
}


def usual_objective(task: TaskKind = "classification", *, is_labelled: bool) -> Objective:
    """What is trained where a spec does not say: soft labels, with the true labels where there are any."""
    soft, hard = _USUAL[task]
    return Objective(terms=[*soft, *([hard(weight=0.5)] if is_labelled and hard else [])])


def misfits(objective: Objective, task: TaskKind) -> list[tuple[int, str]]:
    """The terms with weight that mean nothing for a task: their places in `terms`, and what to do instead."""
    return [
        (place, f"{term.kind} is a term for {_listed(term.tasks)}, not for {task}; {_instead(term, task)}")
        for place, term in enumerate(objective.terms)
        if term.weight > 0 and task not in term.tasks
    ]


def without_logits(objective: Objective, task: TaskKind = "classification") -> list[tuple[int, str]]:
    """The terms with weight that mean nothing where the teacher gives probabilities: places, and what to do instead.

    Such probabilities have a floor, and logits made from them are known up to a constant only.
    """
    return [
        (place, advice) for place, term in enumerate(objective.terms)
        if term.weight > 0 and (advice := _logits_advice(term, task))
    ]


def _logits_advice(term: Term, task: TaskKind) -> str | None:
    if term.needs_logits:
        return f"{term.kind} needs logits, and this teacher gives probabilities; {_instead(term, task)}"
    if isinstance(term, Kl) and term.standardize:
        return "logits cannot be standardised where the teacher gives probabilities; set standardize to false"
    return None


def _instead(term: Term, task: TaskKind) -> str:
    soft, hard = _USUAL[task]
    if term.needs_teacher:
        return f"use {soft[0].kind}"
    return f"use {hard.model_fields['kind'].default}" if hard else "leave it out, for there are no true labels"


def _listed(tasks: frozenset[TaskKind]) -> str:
    return " and ".join(sorted(tasks))
