"""The plan: what a job would do and take, measured by its preflight on one batch, without any training."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stillhouse.contract.report import AppliedRecipe, Environment, SplitSize

# Classes and channels that a plan lists one by one.
MAX_LISTED = 100


class _Part(BaseModel):
    # Readers ignore what a newer service adds. Numbers are finite, or null.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Note(BaseModel):
    """Something a reader should know: a decision, an inference, a warning."""

    model_config = ConfigDict(frozen=True)

    level: Literal["info", "warning"] = "info"
    code: str = Field(max_length=64, description="Stable name of the note.")
    message: str = Field(max_length=4096)
    data: dict[str, Any] = {}


class ModelCost(_Part):
    """What one model costs."""

    architecture: str = Field(description="In short, for example `mlp 784-64-10`.")
    num_parameters: int = Field(ge=0, description="Number of weights; buffers do not count.")
    num_bytes: int = Field(ge=0, description="Weights and buffers in memory, in bytes.")
    macs: int = Field(
        ge=0, description="Multiply-accumulate operations of one sample's forward pass, in matrix products and "
        "convolutions.",
    )


class MemoryNeeds(_Part):
    """Memory that training the student takes on its device, in bytes."""

    weights: int = Field(ge=0, description="The student's weights and buffers.")
    gradients: int = Field(ge=0, description="One value per weight.")
    optimizer: int = Field(ge=0, description="Moments that the optimiser keeps.")
    average: int = Field(ge=0, description="The moving average of the weights; 0 where none is kept.")
    copies: int = Field(ge=0, description="Kept copies: the selected weights, and those evaluated against them.")
    activations: int = Field(
        ge=0, description="What the forward pass of one batch keeps for the way back; measured on the first batch."
    )
    teacher: int = Field(ge=0, description="The teacher's weights and buffers.")
    samples: int = Field(ge=0, description="Decoded samples of every split.")
    total: int = Field(ge=0, description="Sum of the above.")
    available: int | None = Field(
        default=None, ge=0,
        description="What was free on the device when this was measured; null where nobody tells.",
    )
    device_total: int | None = Field(
        default=None, ge=0, description="What the device has in all; null where nobody tells."
    )


class TimeNeeds(_Part):
    """How long a job takes, in seconds, extrapolated from one batch."""

    seconds_per_step: float = Field(
        ge=0, description="Of distilling: forward and back, and the teacher where it labels each batch as it comes."
    )
    num_steps: int = Field(ge=0, description="Steps of distilling, to the last epoch's end.")
    phases: dict[str, float] = Field(description="Seconds by phase of the job.")
    total: float = Field(ge=0, description="Sum over the phases: without waiting for a worker and fetching inputs.")


class Alternative(_Part):
    """Another way to compute the same step, as measured."""

    precision: str
    memory_format: str
    seconds_per_step: float = Field(ge=0)


class Numerics(_Part):
    """How a step is computed."""

    precision: str = Field(description="Type of weights and activations, such as `float32`.")
    memory_format: str = Field(description="Order of an image's axes in memory: `contiguous` or `channels_last`.")
    alternatives: list[Alternative] = Field(default=[], description="What was measured beside it.")


class ClassCount(_Part):
    """How many samples a class has."""

    label: str
    num_samples: int = Field(ge=0)


class PlannedSplit(SplitSize):
    """A split of the data."""

    class_counts: list[ClassCount] = Field(
        default=[], description=f"Samples of each class, of the first {MAX_LISTED} classes; empty without labels."
    )


class PlannedData(_Part):
    """The data as the job reads them."""

    task: str = Field(description="As given, or inferred from the inputs.")
    layout: str = Field(description="Order of the raw inputs' axes: hw, hwc, chw or columns.")
    input_shape: list[int] = Field(description="Of one input of a model: [channels, height, width] or [columns].")
    dtype: str = Field(description="Type of the raw inputs, by NumPy's name.")
    scale: float = Field(description="Factor applied to raw inputs first.")
    mean: list[float] = Field(
        description=f"Subtracted then, per channel or column, in units of the scaled input; the first {MAX_LISTED}."
    )
    std: list[float] = Field(
        description=f"Divided by at last, per channel or column, in units of the scaled input; the first {MAX_LISTED}."
    )
    num_classes: int = Field(ge=1, description="Outputs of the student.")
    splits: list[PlannedSplit]


class PlannedTerm(_Part):
    """One term of the objective on the first batch, before the first step."""

    name: str
    kind: str
    weight: float = Field(description="As the spec gives it, before any ramp.")
    value: float | None = Field(description="Without its weight; null where it is not finite.")
    gradient_share: float | None = Field(
        description="The weighted term's share, 0 to 1, of the gradient that reaches the student's outputs; null where "
        "it is not finite."
    )


class SoftLabels(_Part):
    """How the teacher's answers come to the student."""

    mode: str = Field(
        description="`stored`: computed once, before training. `online`: the teacher answers each batch as it comes. "
        "`none`: no term reads them."
    )
    views: int = Field(default=0, ge=0, description="How many views of each sample are stored.")
    reason: str = Field(description="Why.")


class Plan(_Part):
    """What a job would do and take."""

    version: int = 1
    teacher: ModelCost | None = Field(description="Null where the teacher is no torch module.")
    student: ModelCost
    data: PlannedData
    recipe: AppliedRecipe | None = Field(default=None, description="What would be trained.")
    terms: list[PlannedTerm] = Field(description="Terms with a weight above 0.")
    soft_labels: SoftLabels
    numerics: Numerics
    memory: MemoryNeeds
    seconds: TimeNeeds
    batch_size: int = Field(ge=1, description="Samples per step.")
    environment: Environment = Field(description="Where all this was measured.")
    notes: list[Note] = []
