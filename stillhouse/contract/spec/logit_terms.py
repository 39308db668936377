"""Terms that compare the models' outputs item by item or class by class."""

from typing import ClassVar, Literal

from pydantic import Field

from stillhouse.contract.spec.term import ALL_TASKS, About, BaseTerm, TaskKind, TemperatureTerm

MULTI_LABEL: frozenset[TaskKind] = frozenset({"multi_label"})
REGRESSION: frozenset[TaskKind] = frozenset({"regression"})


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


class Bce(TemperatureTerm):
    """Soft labels where each label is a question of its own, with yes or no for an answer."""

    about: ClassVar[About] = About(
        formula="T² Σ -(p log q + (1 - p) log(1 - q)), p and q the sigmoid of teacher and student at temperature T",
        source="the likelihood of independent Bernoulli variables, softened as Hinton, Vinyals and Dean did, 2015",
        reduction="sum over labels, mean over items: an item's labels are independent, so their likelihoods multiply, "
        "and adding a label that is never true does not make the others count less",
        when="The first choice for multi-label. A cross-entropy, so its least value is above 0.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = MULTI_LABEL

    kind: Literal["bce"] = "bce"


class BinaryCrossEntropy(BaseTerm):
    """Cross-entropy with the true labels, each of them true or not."""

    about: ClassVar[About] = About(
        formula="Σ -(positive_weight y log q + (1 - y) log(1 - q)), q the sigmoid of the student, y 0 or 1 or between",
        source="the likelihood of independent Bernoulli variables",
        reduction="sum over labels, mean over labelled items, as `bce`",
        when="Beside `bce` wherever there are true labels.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = MULTI_LABEL
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    positive_weight: float = Field(
        default=1.0, gt=0, le=1e6,
        description="Factor of the part of labels that are true; above 1 where they are rare, for more of them "
        "found at the price of more found wrongly.",
    )


class SquaredError(BaseTerm):
    """The student's outputs are to be the true values."""

    about: ClassVar[About] = About(
        formula="(student - y)²",
        source="the likelihood of a normal variable of constant variance",
        reduction="mean over outputs, mean over labelled items",
        when="Regression with true values; `huber` where some of them are far off.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = REGRESSION
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    kind: Literal["squared_error"] = "squared_error"


LogitTerm = Kl | Mse | Bce | CrossEntropy | BinaryCrossEntropy | SquaredError
