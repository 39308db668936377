"""Terms that compare the models' outputs item by item or class by class."""

from typing import ClassVar, Literal

from pydantic import Field

from stillhouse.contract.spec.term import ALL_TASKS, About, BaseTerm, TaskKind, TemperatureTerm


class Kl(TemperatureTerm):
    """Hinton's soft labels: T^2 KL(softmax(teacher/T) || softmax(student/T)), mean over items."""

    about: ClassVar[About] = About(
        formula="T² Σ p log(p / q)",
        source="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015",
        reduction="sum over classes, mean over items",
        when="The first choice for classification.",
    )

    kind: Literal["kl"] = "kl"


class CrossEntropy(BaseTerm):
    """Cross-entropy with the true labels, mean over labelled items."""

    about: ClassVar[About] = About(
        formula="-log softmax(student)[y]",
        source="the maximum likelihood of a categorical distribution",
        reduction="mean over labelled items",
        when="Beside soft labels wherever there are true labels.",
    )
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of probability spread evenly over all classes."
    )


class Mse(BaseTerm):
    """Squared difference of the outputs, mean over items and outputs."""

    about: ClassVar[About] = About(
        formula="mean (teacher - student)²",
        source="Ba, Caruana: Do deep nets really need to be deep?, 2014",
        reduction="mean over items and outputs",
        when="Regression and embeddings; for classification where the logits themselves matter.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = ALL_TASKS
    needs_logits: ClassVar[bool] = True

    kind: Literal["mse"] = "mse"


LogitTerm = Kl | CrossEntropy | Mse
