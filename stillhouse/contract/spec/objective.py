"""What the student is trained to minimise: a weighted list of terms."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import Section


class _Term(Section):
    weight: float = Field(default=1.0, ge=0, le=1e6, description="Factor of this term in the sum.")


class Kl(_Term):
    """Hinton's soft labels: T^2 KL(softmax(teacher/T) || softmax(student/T)), mean over items."""

    kind: Literal["kl"] = "kl"
    temperature: float = Field(
        default=2.0, gt=0, le=1000, description="T: above 1 it softens both distributions."
    )


class CrossEntropy(_Term):
    """Cross-entropy with the true labels, mean over labelled items."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of probability spread evenly over all classes."
    )


class Mse(_Term):
    """Squared difference of the logits, mean over items and classes."""

    kind: Literal["mse"] = "mse"


Term = Annotated[Kl | CrossEntropy | Mse, Field(discriminator="kind")]


class Objective(Section):
    """The sum of its terms."""

    terms: list[Term] = Field(min_length=1, max_length=32, description="Terms of the loss, each logged by name.")

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if all(term.weight == 0 for term in self.terms):
            raise ValueError("every weight is 0, so there is nothing to learn; give one term a weight above 0")
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) != len(kinds):
            raise ValueError("a kind of term appears twice; merge the two into one with the summed weight")
        return self

    @property
    def needs_labels(self) -> bool:
        """Whether a term with weight reads the labels."""
        return any(term.kind == "cross_entropy" and term.weight > 0 for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether a term with weight reads the teacher's outputs."""
        return any(term.kind != "cross_entropy" and term.weight > 0 for term in self.terms)


def usual_objective(*, is_labelled: bool) -> Objective:
    """What is trained where a spec does not say: soft labels, with the true labels where there are any."""
    return Objective(terms=[Kl(), CrossEntropy(weight=0.5)] if is_labelled else [Kl()])
