"""The report: what the compressed model kept, and how that was measured."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

JsonValue = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassScore(_Part):
    """How one class fared."""

    label: str
    support: int = Field(description="Number of samples of this class.")
    precision: float
    recall: float
    f1: float


class Scores(_Part):
    """A model's scores on one split. Shares are 0 to 1; null where there are no labels or no teacher."""

    accuracy: float | None = None
    precision_macro: float | None = None
    recall_macro: float | None = None
    f1_macro: float | None = None
    calibration_error: float | None = Field(default=None, description="Expected calibration error, 15 bins.")
    cross_entropy: float | None = Field(default=None, description="Mean, in nats.")
    num_errors: int | None = Field(default=None, description="Samples with the wrong label.")
    agreement: float | None = Field(default=None, description="Share of samples with the teacher's top class.")
    kl_from_teacher: float | None = Field(
        default=None, description="Mean KL(teacher || model) at temperature 1, in nats."
    )
    per_class: list[ClassScore] = []
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
    max_logit_difference: float
    same_top_class: float = Field(description="Share of samples with the same top class.")
    accuracy_difference: float | None = Field(
        default=None, description="Share of samples, without sign; null where there are no labels."
    )


class Environment(_Part):
    """What the bits depend on."""

    device: str
    threads: int
    machine: str
    versions: dict[str, str]


class Report(_Part):
    """What the compressed model kept."""

    version: int = 1
    name: str | None = None
    created_at: datetime
    task: str
    evaluated_on: str = Field(description="Split of the headline scores: `test`, or `validation` where none is given.")
    subjects: list[Subject] = Field(description="Teacher, student and, where trained, control.")
    gain: float | None = Field(
        default=None, description="Student's accuracy minus the control's, in percentage points; one seed."
    )
    parameter_ratio: float | None = Field(
        default=None, description="Teacher's parameters per parameter of the student."
    )
    size_ratio: float | None = Field(default=None, description="Teacher's bytes per byte of the student.")
    speed_ratio: float | None = Field(default=None, description="Teacher's p50 latency over the student's.")
    selection: Selection
    splits: list[SplitSize]
    label_names: list[str]
    seed: int
    parity: list[Parity]
    curves: list[Curve]
    phase_seconds: dict[str, float]
    num_train_samples_seen: int
    environment: Environment
    notes: list[str] = Field(default=[], description="What a reader should know before quoting a number.")

    def subject(self, name: str) -> Subject | None:
        """The model of that name, if it is in the comparison."""
        return next((subject for subject in self.subjects if subject.name == name), None)
