"""How a model is trained: length, optimiser, schedule, selection."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.augmentation import Augmentation
from stillhouse.contract.spec.base import Section


class _Optimizer(Section):
    learning_rate: float = Field(gt=0, le=100, description="Peak step size.")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="Decay of the weights per unit of step size.")


class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0, le=100, description="Peak step size.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Share of the last step that is kept.")
    nesterov: bool = Field(default=False, description="Look ahead along the momentum; needs momentum above 0.")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self


class _Adaptive(_Optimizer):
    learning_rate: float = Field(default=1e-3, gt=0, le=100, description="Peak step size.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the gradient.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of its square.")
    epsilon: float = Field(default=1e-8, gt=0, le=1, description="Added to the denominator.")


class Adam(_Adaptive):
    """Adam; weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"


class AdamW(_Adaptive):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="Decay of the weights per unit of step size.")


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="kind")]


class Constant(Section):
    """The same step size throughout."""

    kind: Literal["constant"] = "constant"


class Cosine(Section):
    """From the peak down a half cosine."""

    kind: Literal["cosine"] = "cosine"
    final_fraction: float = Field(default=0.0, ge=0, le=1, description="Step size at the end, as a share of the peak.")


class OneCycle(Section):
    """Up from peak/25 to the peak and down to almost nothing, both along a cosine (Smith, 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    rise_fraction: float = Field(default=0.3, gt=0, lt=1, description="Share of the steps spent on the way up.")


class Step(Section):
    """Multiplied by a factor at each milestone."""

    kind: Literal["step"] = "step"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.6, 0.8], min_length=1, max_length=64,
        description="Shares of the whole training at which the factor applies, ascending.",
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="What the step size is multiplied by.")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError("milestones must ascend")
        return self


Schedule = Annotated[Constant | Cosine | OneCycle | Step, Field(discriminator="kind")]


class EarlyStopping(Section):
    """Stop when the validation split has stopped getting better."""

    patience: int = Field(
        default=5, ge=1, le=10_000, description="Evaluations in a row without a gain before it stops."
    )
    min_gain: float = Field(
        default=0.0, ge=0, le=1e6, description="Smallest change of the metric that counts as a gain."
    )


class Training(Section):
    """Length, optimiser, schedule and selection."""

    epochs: int = Field(default=30, ge=1, le=100_000, description="Passes over the training split.")
    batch_size: int = Field(default=128, ge=1, le=1_048_576, description="Samples per step.")
    optimizer: Optimizer = Field(default=AdamW(learning_rate=4e-3), description="How weights follow gradients.")
    schedule: Schedule = Field(default=OneCycle(), description="Step size over time.")
    warmup_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps over which the step size first rises from 0 linearly."
    )
    gradient_clip_norm: float | None = Field(
        default=None, gt=0, le=1e6, description="Largest allowed 2-norm of the whole gradient."
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1,
        description="Keep an exponential moving average of the weights with this decay per step, and evaluate and "
        "export that.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        default="auto",
        description="How products are computed; sums, losses and weights keep 32 bits, or 64 with float64. `auto` is "
        "bfloat16 where steps are large and preflight measures that it is faster, else float32.",
    )
    augmentation: Augmentation | None = Field(
        default=None, description="Random changes to images. `soft_labels` says when the teacher sees them."
    )
    balanced_sampling: bool = Field(
        default=False,
        description="Draw every class equally often: an epoch has as many draws as there are samples, repeats those of "
        "rare classes and leaves out some of frequent ones. Needs one class per sample.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Stop before the last epoch.")
    evaluate_every: int = Field(default=1, ge=1, le=100_000, description="Epochs between evaluations on validation.")
    selection_metric: Literal["auto", "accuracy", "average_precision", "r2", "cosine", "agreement", "loss"] = Field(
        default="auto",
        description="What decides the best step on the validation split; `auto` is the task's own score, where it can "
        "be told: accuracy of classification, mean average_precision of multi_label, r2 of regression, which need "
        "labels, and the mean cosine of an embedding with its teacher's; else agreement with the teacher.",
    )
    checkpoint_seconds: float = Field(
        default=60.0, ge=1, le=86_400, description="Least time between two checkpoints to resume from, in seconds."
    )
