"""What the student is trained to minimise: a weighted list of terms."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import Section
from stillhouse.contract.spec.feature_terms import LayerTerm
from stillhouse.contract.spec.logit_terms import CrossEntropy, Kl, LogitTerm
from stillhouse.contract.spec.term import FeatureTerm

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


def usual_objective(*, is_labelled: bool) -> Objective:
    """What is trained where a spec does not say: soft labels, with the true labels where there are any."""
    return Objective(terms=[Kl(), CrossEntropy(weight=0.5)] if is_labelled else [Kl()])
