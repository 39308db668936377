"""The report: what the compressed model kept, and how that was measured."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

JsonValue = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassScore(_Part):
    """How one class or label fared."""

    label: str
    support: int = Field(description="Number of samples of this class, or with this label.")
    precision: float
    recall: float
    f1: float
    average_precision: float | None = Field(
        default=None, description="Of a label: area under its curve of precision over recall; null where none has it."
    )


class TargetScore(_Part):
    """How one target of a regression fared, in its own unit."""

    target: str
    mae: float = Field(description="Mean absolute error.")
    rmse: float = Field(description="Root of the mean squared error.")
    r2: float | None = Field(description="Share of the variance that is explained; null where the true value is one.")


class Scores(_Part):
    """A model's scores on one split, each of the tasks that have it. Shares are 0 to 1.

    Null where there are no labels or no teacher. What is told against labels is of the samples that have one.
    """

    accuracy: float | None = Field(default=None, description="Share of samples whose class is right.")
    average_precision: float | None = Field(
        default=None, description="Multi-label: mean over the labels that occur of each one's average precision."
    )
    precision_macro: float | None = None
    recall_macro: float | None = None
    f1_macro: float | None = None
    f1_micro: float | None = Field(default=None, description="Multi-label: of all decisions together.")
    exact_match: float | None = Field(
        default=None, description="Multi-label: share of samples whose labels are all right."
    )
    calibration_error: float | None = Field(default=None, description="Expected calibration error, 15 bins.")
    cross_entropy: float | None = Field(
        default=None, description="Mean over samples, in nats; of a multi-label sample the sum over its labels."
    )
    num_errors: int | None = Field(default=None, description="Samples with a wrong label.")
    r2: float | None = Field(
        default=None, description="Regression: mean over the targets that vary of 1 - squared error / variance."
    )
    mae: float | None = Field(default=None, description="Regression: mean absolute error, mean over targets.")
    rmse: float | None = Field(
        default=None, description="Regression: root of the mean squared error of each target, mean over targets."
    )
    cosine: float | None = Field(
        default=None, description="Embedding: mean cosine between the model's vectors and the teacher's."
    )
    agreement: float | None = Field(
        default=None,
        description="How often the model answers like the teacher. Classification: share of samples with the same top "
        "class; multi-label: share of decisions that are the same; regression: R² against the teacher's values; "
        "embedding: share of a sample's 10 nearest neighbours, by cosine, that are the teacher's, of at most 1,000 "
        "samples.",
    )
    kl_from_teacher: float | None = Field(
        default=None,
        description="Mean KL(teacher || model) at temperature 1, in nats; of a multi-label sample the sum over its "
        "labels.",
    )
    mse_from_teacher: float | None = Field(
        default=None, description="Regression and embedding: squared difference, mean over samples and outputs."
    )
    similarity_correlation: float | None = Field(
        default=None,
        description="Embedding: Spearman's rank correlation of the cosines between samples with the teacher's, of at "
        "most 1,000 samples.",
    )
    per_class: list[ClassScore] = []
    per_target: list[TargetScore] = []
    confusion: list[list[int]] = Field(default=[], description="Row: true class. Column: answered class.")


class Latency(_Part):
    """Time of one forward pass, in milliseconds."""

    device: str
    batch_size: int
    threads: int
    num_runs: int
    p50_ms: float
    p95_ms: float


class Subject(_Part):
    """One model in the comparison: teacher, student, or control (the same student without a teacher)."""

    name: str
    architecture: str = Field(description="In short, for example `mlp 784-64-10`.")
    num_parameters: int | None = Field(default=None, description="Null where nobody knows.")
    num_bytes: int | None = Field(
        default=None, description="Size of the weights as safetensors, or of a teacher's file; null where nobody knows."
    )
    latency: Latency | None = None
    scores: Scores = Field(description="Of the selected weights, on `evaluated_on`.")
    final_scores: Scores | None = Field(default=None, description="Of the weights after the last step.")
    validation_scores: Scores | None = Field(default=None, description="Of the selected weights, on validation.")
    selected_step: int | None = None
    last_step: int | None = None
    stopped_early: bool = False


class Selection(_Part):
    """How the best step was chosen."""

    metric: str
    split: str
    num_samples: int


class SplitSize(_Part):
    """A split of the data."""

    name: str
    num_samples: int
    is_labelled: bool
    num_labelled: int | None = Field(default=None, description="Samples with a label, where some have none.")
    origin: str = Field(description="`given`, or how it was made.")


class Curve(_Part):
    """One metric over the steps of training."""

    name: str
    steps: list[int]
    values: list[float]


class Parity(_Part):
    """The exported file, loaded in a fresh process, against the model that was trained."""

    format: str
    num_samples: int
    max_output_difference: float
    same_decisions: float | None = Field(
        default=None,
        description="Share of samples with the same class, or of labels with the same decision; null where the outputs "
        "are themselves the answer.",
    )
    accuracy_difference: float | None = Field(
        default=None,
        description="Of the share of decisions that are right, without sign; null where there are no labels or no "
        "decisions.",
    )


class Environment(_Part):
    """What the bits depend on."""

    device: str
    threads: int
    machine: str
    versions: dict[str, str]


class AppliedRecipe(_Part):
    """What a job's recipe and the spec's own words came to. Sections are as a job spec writes them."""

    name: str = Field(description="The recipe; where the spec says `auto`, what it chose.")
    overrides: list[str] = Field(
        default=[], description="JSON pointers of what the spec gave itself of what a recipe settles."
    )
    objective: dict[str, Any] = Field(description="The terms that the student minimises.")
    training: dict[str, Any] = Field(description="How the student is trained, every field.")
    soft_labels: dict[str, Any] = Field(description="When the teacher is asked, as it was asked for.")


class Interruption(_Part):
    """Where training was cut short: by request, or as the job had run for as long as it may."""

    step: int = Field(description="Steps of the student that were done.")
    total_steps: int = Field(description="Steps that it was to do.")
    without_control: bool = Field(
        default=False, description="Whether a control was asked for, and left out as it was not trained to its end."
    )


class Report(_Part):
    """What the compressed model kept."""

    version: int = 1
    name: str | None = None
    created_at: datetime
    task: str
    inputs: str | None = Field(default=None, description="What the models read: `images` or `table`.")
    num_outputs: int | None = Field(default=None, description="Classes, labels, targets or dimensions.")
    threshold: float | None = Field(
        default=None, description="Multi-label: probability from which on a label counts as true."
    )
    evaluated_on: str = Field(description="Split of the headline scores: `test`, or `validation` where none is given.")
    subjects: list[Subject] = Field(description="Teacher, student and, where trained, control.")
    gain: float | None = Field(
        default=None, description="Student's score minus the control's, of `gain_metric`, in `gain_unit`; one seed."
    )
    gain_metric: str | None = Field(
        default=None, description="The score that `gain` is told in: accuracy, average_precision or r2."
    )
    gain_unit: str | None = Field(
        default=None, description="`percentage points` of accuracy and average precision, `R²` of r2."
    )
    parameter_ratio: float | None = Field(
        default=None, description="Teacher's parameters per parameter of the student."
    )
    size_ratio: float | None = Field(default=None, description="Teacher's bytes per byte of the student.")
    speed_ratio: float | None = Field(default=None, description="Teacher's p50 latency over the student's.")
    selection: Selection
    splits: list[SplitSize]
    label_names: list[str] = Field(description="Of the outputs; empty where they have none, as an embedding's.")
    seed: int
    recipe: AppliedRecipe | None = Field(default=None, description="What was trained; null in reports of before.")
    interrupted: Interruption | None = Field(
        default=None, description="Where training was cut short; the student is the best until then."
    )
    parity: list[Parity]
    curves: list[Curve]
    phase_seconds: dict[str, float]
    num_train_samples_seen: int
    environment: Environment
    notes: list[str] = Field(default=[], description="What a reader should know before quoting a number.")

    def subject(self, name: str) -> Subject | None:
        """The model of that name, if it is in the comparison."""
        return next((subject for subject in self.subjects if subject.name == name), None)
