"""Terms that look at the models' outputs only: at the teacher's, at the true labels, or at both."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.term import ALL_TASKS, About, BaseTerm, Factor, TaskKind, Temperature, TemperatureTerm

MULTI_LABEL: frozenset[TaskKind] = frozenset({"multi_label"})
REGRESSION: frozenset[TaskKind] = frozenset({"regression"})


class Kl(TemperatureTerm):
    """Hinton's soft labels: the student's distribution is to be the teacher's."""

    about: ClassVar[About] = About(
        formula="T² Σ p log(p / q)",
        source="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015; `standardize` is from Sun, "
        "Ren, Li, Wang, Cao: Logit standardization in knowledge distillation, 2024",
        reduction="sum over classes, mean over items",
        when="The first choice for classification. With `standardize` where the student is far smaller than the "
        "teacher and need not reach the range of its logits; published with T = 2 and weight 9 beside "
        "`cross_entropy` of weight 0.1.",
    )

    kind: Literal["kl"] = "kl"
    standardize: bool = Field(
        default=False,
        description="Divide each item's logits, on both sides, by their standard deviation after their mean is taken "
        "away: (x - mean) / (std + 1e-7), unbiased. Of two classes only the order is left. Not for a teacher that "
        "gives probabilities.",
    )


class ReverseKl(TemperatureTerm):
    """The divergence the other way round: the student is to put nothing where the teacher puts nothing."""

    about: ClassVar[About] = About(
        formula="T² Σ q log(q / p)",
        source="Gu, Dong, Wei, Huang: MiniLLM, knowledge distillation of large language models, 2024",
        reduction="sum over classes, mean over items",
        when="Where a small student should be right about the teacher's main classes rather than spread over all.",
    )

    kind: Literal["reverse_kl"] = "reverse_kl"


class Js(TemperatureTerm):
    """Generalised Jensen-Shannon divergence: bounded, and between `kl` and `reverse_kl`."""

    about: ClassVar[About] = About(
        formula="T² (beta Σ p log(p / m) + (1 - beta) Σ q log(q / m)), m = beta p + (1 - beta) q",
        source="Agarwal, Vieillard, Zhou, Stanczyk, Ramos, Geist, Bachem: On-policy distillation of language models, "
        "2024",
        reduction="sum over classes, mean over items",
        when="With a teacher that is sometimes very sure and wrong: no item costs more than T² log 2.",
    )

    kind: Literal["js"] = "js"
    beta: float = Field(
        default=0.5, gt=0, lt=1,
        description="Share of the teacher in the mixture. The divergence vanishes towards both ends, which are "
        "refused; divided by the share that vanishes it becomes `kl` (towards 0) and `reverse_kl` (towards 1).",
    )


class Mse(BaseTerm):
    """The student's outputs are to be the teacher's, as numbers."""

    about: ClassVar[About] = About(
        formula="(student - teacher)², of the logits themselves where they are logits",
        source="Ba, Caruana: Do deep nets really need to be deep?, 2014",
        reduction="mean over items and outputs",
        when="Regression and embeddings; for classification where the logits themselves matter.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = ALL_TASKS
    needs_logits: ClassVar[bool] = True

    kind: Literal["mse"] = "mse"


class Dkd(TemperatureTerm):
    """Decoupled distillation: how sure of the true class, and how the rest is shared, weighed apart."""

    about: ClassVar[About] = About(
        formula="T² (alpha KL of (p_y, 1 - p_y) from (q_y, 1 - q_y) + beta KL of p from q, both without class y and "
        "normalised again)",
        source="Zhao, Cui, Song, Qiu, Liang: Decoupled knowledge distillation, 2022",
        reduction="sum over classes, mean over labelled items",
        when="With a teacher that is very sure of the true class, whose word on the others `kl` hardly hears. "
        "Published beside `cross_entropy`, with a warm-up of the weight over the first 20 of 240 epochs.",
    )
    needs_labels: ClassVar[bool] = True
    needs_true_class: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True  # among small probabilities, normalised again, a floor is all there is

    kind: Literal["dkd"] = "dkd"
    alpha: Factor = Field(default=1.0, description="Factor of the part on the true class against all others.")
    beta: Factor = Field(default=8.0, description="Factor of the part among the other classes; published 0.5 to 8.")
    temperature: Temperature = 4.0

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, so this term is always 0; give one of them a value above 0")
        return self


class Dist(TemperatureTerm):
    """Correlation in place of equality: between classes for each item, and between items for each class."""

    about: ClassVar[About] = About(
        formula="T² (beta (1 - mean over items of corr(p, q)) + gamma (1 - mean over classes of corr(p, q))), "
        "corr(x, y) = ⟨x, y⟩ / (|x| |y| + 1e-8) of centred values",
        source="Huang, You, Wang, Qian, Xu: Knowledge distillation from a stronger teacher, 2022",
        reduction="mean over items of the first part, mean over classes of the second",
        when="With a teacher much stronger than the student, whose probabilities it could never meet exactly. "
        "Published with T = 4 on CIFAR-100 and T = 1 on ImageNet. A batch of one item has no second part.",
    )
    compares_items: ClassVar[bool] = True

    kind: Literal["dist"] = "dist"
    beta: Factor = Field(default=1.0, description="Factor of the part between classes, item by item.")
    gamma: Factor = Field(default=1.0, description="Factor of the part between items, class by class.")
    temperature: Temperature = 4.0

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.beta == self.gamma == 0:
            raise ValueError("beta and gamma are both 0, so this term is always 0; give one of them a value above 0")
        return self


class Nkd(TemperatureTerm):
    """Normalised distillation: the true class by the teacher's word, the others among themselves."""

    about: ClassVar[About] = About(
        formula="-p_y log q_y, both at temperature 1, plus gamma T² Σ -(p log q), both at temperature T, without class "
        "y and normalised again",
        source="Yang, Zeng, Li, Zhang, Yuan, Li: From knowledge distillation to self-knowledge distillation, 2023",
        reduction="sum over classes, mean over labelled items",
        when="As `dkd`, with one factor to set; published beside `cross_entropy`. A cross-entropy, so its least value "
        "is above 0.",
    )
    needs_labels: ClassVar[bool] = True
    needs_true_class: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True  # as in dkd

    kind: Literal["nkd"] = "nkd"
    gamma: Factor = Field(default=1.5, description="Factor of the part among the other classes.")
    temperature: Temperature = 1.0


class Ttm(BaseTerm):
    """Transformed teacher matching: only the teacher is softened, by a power of its probabilities."""

    about: ClassVar[About] = About(
        formula="Σ u log(u / q), u = p^gamma / Σ p^gamma, p and q at temperature 1",
        source="Zheng, Yang: Knowledge distillation based on transformed teacher matching, 2024",
        reduction="sum over classes, mean over items",
        when="Where the student should come out less sure than its teacher. There is no factor 1/gamma²: published "
        "with weights of some 45 beside `cross_entropy`.",
    )

    kind: Literal["ttm"] = "ttm"
    gamma: float = Field(default=0.1, gt=0, le=1, description="Power of the teacher's probabilities, 1/T.")


class Wttm(BaseTerm):
    """Weighted transformed teacher matching: `ttm` with more weight on items of which the teacher is unsure."""

    about: ClassVar[About] = About(
        formula="(Σ p^gamma) Σ u log(u / q), u = p^gamma / Σ p^gamma, p and q at temperature 1",
        source="Zheng, Yang: Knowledge distillation based on transformed teacher matching, 2024",
        reduction="sum over classes, mean over items; the items' weights are not normalised",
        when="As `ttm`, on data with both easy and hard items. The weight Σ p^gamma is between 1 and C^(1 - gamma) "
        "with C classes.",
    )

    kind: Literal["wttm"] = "wttm"
    gamma: float = Field(default=0.2, gt=0, le=1, description="Power of the teacher's probabilities, 1/T.")


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


class CrossEntropy(BaseTerm):
    """Cross-entropy with the true labels: one class per item, or shares of classes, as mixup makes them."""

    about: ClassVar[About] = About(
        formula="-log q_y at temperature 1; -Σ y log q where y are shares of classes",
        source="the likelihood of a categorical variable; smoothing is from Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: "
        "Rethinking the inception architecture, 2016",
        reduction="sum over classes, mean over labelled items",
        when="Beside soft labels wherever there are true labels.",
    )
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of probability spread evenly over all classes."
    )


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


class Huber(BaseTerm):
    """Squared error near the true values, absolute error far from them."""

    about: ClassVar[About] = About(
        formula="d² / 2 where |d| ≤ delta, else delta (|d| - delta / 2), d = student - y",
        source="Huber: Robust estimation of a location parameter, 1964",
        reduction="mean over outputs, mean over labelled items",
        when="Regression on true values with outliers. delta = 1 is PyTorch's smooth L1.",
    )
    tasks: ClassVar[frozenset[TaskKind]] = REGRESSION
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    kind: Literal["huber"] = "huber"
    delta: float = Field(
        default=1.0, gt=0, le=1e6, description="In units of the outputs: errors beyond it count by their size only."
    )


LogitTerm = (
    Kl | ReverseKl | Js | Mse | Dkd | Dist | Nkd | Ttm | Wttm | Bce
    | CrossEntropy | BinaryCrossEntropy | SquaredError | Huber
)
