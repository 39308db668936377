"""What happens to a job, as a closed set of small types. The same events travel from the GPU to the client.

Events of the trainer cross the pipe as JSON, are recorded with a sequence number, and reach watchers unchanged.
A reader that meets a type it does not know gets an `UnknownEvent`.
"""

import math
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from stillhouse.contract.failures import Failure
from stillhouse.contract.lending import ShardKey
from stillhouse.contract.plan import Note, Plan
from stillhouse.contract.report import Report
from stillhouse.contract.status import Phase, Request, Status

# A file below the trainer's scratch folder, with forward slashes.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
ScratchPath = Annotated[str, Field(min_length=1, max_length=255, pattern=rf"^{_NAME}(/{_NAME})*$")]
# JSON has no NaN: what is not finite travels as null.
MetricValue = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
StepCount = Annotated[int, Field(ge=0, lt=2**63)]
MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z][a-z0-9_./]*$")]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


class StatusChanged(_Event):
    """The job's status changed. Told by the service."""

    type: Literal["status"] = "status"
    status: Status
    reason: str = Field(max_length=1024, description="Why, in a few words.")
    request_id: str | None = Field(
        default=None, description="In the first event of a job: of the request that submitted it."
    )


class PhaseStarted(_Event):
    """A phase began."""

    type: Literal["phase"] = "phase"
    phase: Phase
    total_steps: StepCount | None = Field(default=None, description="Steps of this phase, where they can be counted.")


class Progressed(_Event):
    """Where the running phase stands. Comes at most a few times per second."""

    type: Literal["progress"] = "progress"
    phase: Phase
    step: StepCount = Field(description="Steps of this phase that are done.")
    total_steps: StepCount | None = None
    percent: float = Field(ge=0, le=100, description="Share of the whole job that is done.")
    samples_per_second: float | None = None
    eta_seconds: float | None = Field(
        default=None, description="Until the end of the whole job; null while there is no honest estimate."
    )


class Measured(_Event):
    """Values of named metrics at a step: terms of the loss, learning rate, scores on validation."""

    type: Literal["metrics"] = "metrics"
    phase: Phase
    step: StepCount
    values: dict[MetricName, MetricValue] = Field(max_length=128)


class Noted(Note, _Event):
    """Something a reader of the log should know: a decision, an inference, a warning."""

    type: Literal["note"] = "note"


class CheckpointSaved(_Event):
    """The trainer wrote a checkpoint from which the job can resume."""

    type: Literal["checkpoint"] = "checkpoint"
    phase: Phase
    step: StepCount
    file: ScratchPath
    metrics: dict[MetricName, MetricValue] = Field(
        default={}, max_length=128, description="What the last evaluation before it said of the model in training."
    )
    evaluated_step: StepCount | None = Field(default=None, description="Step of that evaluation.")
    best_step: StepCount | None = Field(
        default=None, description="Step of the best evaluation so far, whose weights the checkpoint holds as well."
    )


class SoftLabelsSaved(_Event):
    """The trainer wrote a shard of soft labels: what the teacher says of some samples of a split, in one view."""

    type: Literal["soft_labels"] = "soft_labels"
    key: ShardKey = Field(description="Digest of all that went into it.")
    split: str = Field(max_length=64)
    view: StepCount = Field(description="Which augmentation of the samples; 0 where there is none.")
    shard: StepCount = Field(description="Place among the shards of the split, from 0.")
    num_rows: StepCount
    seconds: float = Field(ge=0, description="What it took to make.")
    file: ScratchPath


class Stopped(_Event):
    """The trainer ended because it was asked to; its last checkpoint holds everything."""

    type: Literal["stopped"] = "stopped"
    request: Request


class ProducedFile(BaseModel):
    """A result of the job, below the trainer's scratch folder."""

    model_config = ConfigDict(frozen=True)

    role: Literal["bundle", "safetensors", "onnx", "report_html"]
    file: ScratchPath


class Finished(_Event):
    """The trainer reached the end. The job succeeds when the files are stored."""

    type: Literal["finished"] = "finished"
    report: Report
    files: list[ProducedFile] = Field(max_length=16)


class Planned(_Event):
    """The trainer reached the end of a plan: preflight found nothing wrong."""

    type: Literal["planned"] = "planned"
    plan: Plan


class Failed(_Event):
    """The trainer gave up."""

    type: Literal["failed"] = "failed"
    failure: Failure


class UnknownEvent(_Event):
    """An event of a newer service."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str


# What a trainer may send up its pipe.
TrainerEvent = Annotated[
    PhaseStarted | Progressed | Measured | Noted | CheckpointSaved | SoftLabelsSaved | Stopped | Finished | Planned
    | Failed,
    Field(discriminator="type"),
]
Event = Annotated[
    StatusChanged | PhaseStarted | Progressed | Measured | Noted | CheckpointSaved | SoftLabelsSaved | Stopped
    | Finished | Planned | Failed,
    Field(discriminator="type"),
]
TRAINER_EVENT: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent)
EVENT: TypeAdapter[Event] = TypeAdapter(Event)

# The events after which a trainer sends nothing more.
LAST_WORDS = (Stopped, Finished, Planned, Failed)


class RecordedEvent(BaseModel):
    """An event with its place in the job's log."""

    seq: int = Field(ge=1, description="Place in the job's log, without gaps. The id of the server-sent event.")
    at: datetime
    attempt: int
    event: Event | UnknownEvent = Field(union_mode="left_to_right")

    @property
    def ends_job(self) -> bool:
        """Whether nothing follows."""
        return isinstance(self.event, StatusChanged) and self.event.status in {
            Status.SUCCEEDED, Status.FAILED, Status.CANCELLED,
        }
