"""What every term of an objective has: a name, a weight, and how the weight changes over the training."""

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import Section

Factor = Annotated[float, Field(ge=0, le=1e6)]


class WarmUp(Section):
    """From 0 up to the value itself along a line, then constant."""

    kind: Literal["warm_up"] = "warm_up"
    fraction: float = Field(default=0.1, gt=0, le=1, description="Share of the training until the value is reached.")


class _Between(Section):
    start: Factor = Field(default=1.0, description="Factor of the value at the first step.")
    end: Factor = Field(default=0.0, description="Factor of the value at the last step.")


class Linear(_Between):
    """From one factor to another along a line."""

    kind: Literal["linear"] = "linear"


class HalfCosine(_Between):
    """From one factor to another along a half cosine."""

    kind: Literal["cosine"] = "cosine"


Ramp = Annotated[WarmUp | Linear | HalfCosine, Field(discriminator="kind")]


class About(NamedTuple):
    """A term's row in docs/objectives.md."""

    # Plain text: p and q are the softmax of teacher and student at temperature T, y the true class, s and t the outputs
    # of a layer of the student and of one of the teacher.
    formula: str
    source: str  # paper: authors, title, year
    reduction: str
    when: str  # when to use it


TaskKind = Literal["classification", "multi_label", "regression", "embedding"]


class BaseTerm(Section):
    """A part of a loss."""

    about: ClassVar[About]
    tasks: ClassVar[frozenset[TaskKind]] = frozenset({"classification"})
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    # Whether the labels must be one class per item: not shares of classes, as mixup and votes give them.
    needs_true_class: ClassVar[bool] = False
    # Not only what is left of logits after a softmax.
    needs_logits: ClassVar[bool] = False
    # Whether an item's part depends on the other items of its batch.
    compares_items: ClassVar[bool] = False

    name: str | None = Field(
        default=None, pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="Name under which the term is logged; its kind when left out. Needed where a kind appears twice.",
    )
    weight: float = Field(default=1.0, ge=0, le=1e6, description="Factor of this term in the sum.")
    weight_ramp: Ramp | None = Field(
        default=None, description="How the weight changes over the training; constant when left out."
    )


Temperature = Annotated[
    float, Field(gt=0, le=1000, description="T: above 1 it softens both distributions.")
]


class TemperatureTerm(BaseTerm):
    """A term that softens both distributions."""

    temperature: Temperature = 2.0
    temperature_ramp: Annotated[Linear | HalfCosine, Field(discriminator="kind")] | None = Field(
        default=None, description="How T changes over the training; constant when left out."
    )

    @model_validator(mode="after")
    def _temperature_stays_positive(self) -> Self:
        if self.temperature_ramp and min(self.temperature_ramp.start, self.temperature_ramp.end) <= 0:
            raise ValueError("temperature_ramp must start and end above 0: a temperature of 0 has no distribution")
        return self


LayerPath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=256,
        description="Dotted path of a module, as `named_modules()` tells it.", examples=["body.6", "layer3.1.conv2"],
    ),
]


class LayerPair(Section):
    """Two layers whose outputs are to be alike."""

    student: LayerPath = Field(description="Layer of the student.")
    teacher: LayerPath = Field(description="Layer of the teacher.")


ALL_TASKS: frozenset[TaskKind] = frozenset(("classification", "multi_label", "regression", "embedding"))


class FeatureTerm(BaseTerm):
    """A term that compares outputs of layers. The teacher must answer every batch as it comes."""

    tasks: ClassVar[frozenset[TaskKind]] = ALL_TASKS

    pairs: list[LayerPair] = Field(
        min_length=1, max_length=16, description="Layers that are compared; the term is the mean over the pairs."
    )


class OutputTerm(FeatureTerm):
    """A term that compares outputs of layers, or the models' own."""

    pairs: list[LayerPair] = Field(
        default=[], max_length=16,
        description="Layers that are compared; the term is the mean over the pairs. The models' own outputs when "
        "left out.",
    )
