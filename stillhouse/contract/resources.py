"""What the API answers with: the read side of jobs, artifacts and keys. Readers ignore keys they do not know."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from stillhouse.contract.failures import Blame, Failure, FieldError
from stillhouse.contract.plan import Plan
from stillhouse.contract.report import AppliedRecipe
from stillhouse.contract.status import TERMINAL, Action, Keep, Phase, Status

ArtifactKind = Literal["teacher", "data", "model", "state", "soft_labels"]
UploadKind = Literal["teacher", "data"]
UploadFormat = Literal["safetensors", "pytorch", "onnx", "idx", "npz", "parquet", "images", "hugging_face", "csv"]
Item = TypeVar("Item")
ModelFormat = Literal["zip", "safetensors", "onnx"]
Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL_SCOPES: tuple[Scope, ...] = ("read", "submit")
# What a database's integer holds, with room for sums.
_MOST = 2**62


class Resource(BaseModel):
    """Base of what the API answers with."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(Resource, Generic[Item]):
    """A page of a list."""

    data: list[Item]
    has_more: bool = False
    next_cursor: str | None = Field(default=None, description="Give it as `cursor` to get the next page.")


class Progress(Resource):
    """How far a running job is."""

    percent: float = Field(default=0.0, description="Share of the whole job that is done, 0 to 100.")
    step: int | None = Field(default=None, description="Steps of the running phase that are done.")
    total_steps: int | None = None
    samples_per_second: float | None = None
    eta_seconds: float | None = Field(default=None, description="Null while there is no honest estimate.")
    metrics: dict[str, float] = Field(default={}, description="Latest value of each metric.")


class QueuePlace(Resource):
    """Where a queued job stands."""

    position: int = Field(ge=1, description="1 is next; counted up to 1001.")
    reason: str = Field(description="Why it waits.")


class JobFile(Resource):
    """A stored result of a job."""

    role: str
    artifact_id: str
    format: str
    size: int
    sha256: str


class Job(Resource):
    """A job as GET /jobs/{id} tells it."""

    id: str
    retry_of: str | None = Field(default=None, description="The job whose spec this one repeats.")
    name: str | None = None
    labels: dict[str, str] = {}
    priority: int = Field(default=0, description="Which of the jobs that wait goes first, within fair shares.")
    status: Status | str = Field(union_mode="left_to_right")
    terminal: bool = Field(description="Whether the status is final.")
    keep: Keep | str | None = Field(
        default=None, description="`best`: it was cancelled, and its best student so far is to be its model."
    )
    phase: Phase | str | None = Field(default=None, union_mode="left_to_right")
    stalled: bool = Field(
        default=False, description="Running, but no event has come for longer than the service expects."
    )
    attempt: int = Field(description="How often a worker has begun this job.")
    losses: int = Field(default=0, description="How often its worker was lost.")
    queue: QueuePlace | None = Field(default=None, description="Only while queued.")
    progress: Progress = Progress()
    error: Failure | None = Field(default=None, description="Only when failed.")
    allowed_actions: list[Action | str] = []
    files: list[JobFile] = []
    spec: dict[str, Any] = Field(default={}, description="As it was sent.")
    recipe: AppliedRecipe | None = Field(
        default=None, description="What its recipe came to: of an ended job what was trained. Null in lists."
    )
    seed: int = 0
    created_at: datetime
    started_at: datetime | None = Field(default=None, description="When a worker first began it.")
    finished_at: datetime | None = None
    last_event_at: datetime | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether the compressed model is ready."""
        return self.status == Status.SUCCEEDED


class Planning(Resource):
    """A plan on its way, made, or failed, as GET /plans/{id} tells it."""

    id: str
    status: Status | str = Field(union_mode="left_to_right")
    terminal: bool = Field(description="Whether the status is final.")
    attempt: int = Field(description="How often a worker has begun this plan.")
    losses: int = Field(default=0, description="How often its worker was lost.")
    queue: QueuePlace | None = Field(default=None, description="Only while queued.")
    plan: Plan | None = Field(default=None, description="Only when succeeded.")
    error: Failure | None = Field(
        default=None, description="Only when failed: what would have failed a job of this spec."
    )
    allowed_actions: list[Action | str] = []
    spec: dict[str, Any] = Field(default={}, description="As it was sent.")
    created_at: datetime
    started_at: datetime | None = Field(default=None, description="When a worker first began it.")
    finished_at: datetime | None = None


class Figure(Resource):
    """A measured value."""

    name: str = Field(description="What it is, and in which unit.")
    values: list[float] = Field(description="One for each seed, or the one value.")


class Evidence(Resource):
    """What one of the project's own benchmarks measured of a recipe."""

    benchmark: str = Field(description="Runs again as `python -m benchmarks.NAME`.")
    what: str = Field(description="Models, data, score and split.")
    file: str = Field(description="Where the figures lie in the repository, with the machine that gave them.")
    date: str
    seeds: list[int] = []
    figures: list[Figure] = []


class ListedRecipe(Resource):
    """A recipe: terms and training settings that belong together. Sections are as a job spec writes them."""

    name: str
    tasks: list[str] = Field(description="Tasks that it is for.")
    chosen_for: list[str] = Field(default=[], description="Tasks for which `auto` chooses it.")
    when: str = Field(description="When to use it.")
    objective: dict[str, Any] = Field(description="Of labelled data; terms of labels are left out on others.")
    training: dict[str, Any] = Field(description="Every field, also those that are at the job spec's defaults.")
    soft_labels: dict[str, Any] | None = Field(default=None, description="Null leaves them to the job spec.")
    evidence: list[Evidence] = Field(default=[], description="What was measured; empty where nothing was yet.")


class Artifact(Resource):
    """A stored file."""

    id: str
    kind: ArtifactKind | str = Field(union_mode="left_to_right")
    name: str
    format: str
    size: int = Field(description="In bytes.")
    sha256: str
    facts: dict[str, Any] = Field(
        default={},
        description="What the file's header tells: shapes, types, metadata. Of soft labels: their key, split, view, "
        "shard and rows, the seconds they took, how many other jobs used them and the seconds that these saved.",
    )
    job_id: str | None = Field(default=None, description="The job that made it.")
    created_at: datetime


class Upload(Resource):
    """A resumable upload, as GET /uploads/{id} tells it."""

    id: str
    status: str = Field(
        description="`receiving` while bytes are missing, `finishing` while the whole is inspected and kept, then "
        "`finished` or `refused`.",
    )
    name: str
    kind: ArtifactKind | str = Field(union_mode="left_to_right")
    offset: int = Field(description="Bytes that have come.")
    length: int = Field(description="Bytes in all.")
    artifact_id: str | None = Field(default=None, description="What it has become; only when finished.")
    error: Failure | None = Field(default=None, description="Only when refused.")
    created_at: datetime
    expires_at: datetime = Field(description="When it is forgotten unless more bytes come.")


class MetricSeries(Resource):
    """One metric of a job over its steps."""

    name: str
    phase: str
    points: list[tuple[int, float | None]] = Field(description="Pairs of step and value, ascending.")


class Attempt(Resource):
    """One worker's go at a job, as GET /jobs/{id}/attempts tells it."""

    attempt: int = Field(description="Counted from 1.")
    worker: str = Field(description="Host and process of the worker.")
    started_at: datetime = Field(description="When the worker claimed the job.")
    ended_at: datetime | None = Field(default=None, description="Null while it goes on.")
    seconds: float = Field(description="How long it took, or has taken so far.")
    outcome: str | None = Field(
        default=None,
        description="How it ended: `succeeded`, `failed`, `cancelled`, `paused`, `drained` (the worker shut down) or "
        "`lost` (worker or trainer died). Null while it goes on.",
    )
    reason: str | None = Field(default=None, description="Why it ended, in a few words; of `failed`, the error's code.")


class Checkpoint(Resource):
    """A stored checkpoint of a job, as GET /jobs/{id}/checkpoints tells it."""

    artifact_id: str = Field(description="Its bytes are at /artifacts/{artifact_id}/content.")
    attempt: int = Field(description="The attempt that wrote it.")
    phase: Phase | str = Field(union_mode="left_to_right", description="What was under way.")
    step: int = Field(description="Steps of that phase that were done.")
    created_at: datetime
    size: int = Field(description="In bytes.")
    sha256: str
    is_last: bool = Field(description="Whether the job goes on from it.")
    metrics: dict[str, float | None] = Field(
        default={}, description="What the last evaluation before it said of the model in training."
    )
    evaluated_step: int | None = Field(default=None, description="Step of that evaluation.")
    best_step: int | None = Field(
        default=None, description="Step of the best evaluation so far, whose weights it holds as well."
    )


class AttemptLog(Resource):
    """What the trainer of one attempt printed."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    truncated: bool = Field(default=False, description="Whether the middle was left out.")
    text: str = ""


class KeyLimits(Resource):
    """Limits of a key's own, in place of the service's. 0 is no limit; null is the service's."""

    requests_per_minute: int | None = Field(default=None, ge=0, le=_MOST, description="Requests with this key.")
    stored_bytes: int | None = Field(default=None, ge=0, le=_MOST, description="Bytes that the owner has stored.")
    queued_jobs: int | None = Field(default=None, ge=0, le=_MOST, description="The owner's jobs that wait.")
    running_jobs: int | None = Field(
        default=None, ge=0, le=2**31 - 1,
        description="The owner's jobs that run, when one that was submitted with this key is to start.",
    )


class ApiKey(Resource):
    """An API key, without its secret."""

    id: str
    owner: str | None = None
    name: str
    scopes: list[str] = Field(default=[], description="What it may do: read, submit, admin.")
    limits: KeyLimits = KeyLimits()
    prefix: str = Field(description="First characters of the secret, to recognise it by.")
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class CreatedApiKey(ApiKey):
    """An API key with its secret, which is shown this once."""

    secret: str
    former_secret_ends_at: datetime | None = Field(
        default=None, description="Until when the secret before a rotation is valid too."
    )


class Used(Resource):
    """What an owner uses of what keys limit."""

    stored_bytes: int = Field(description="Bytes that are stored or promised to uploads, equal ones once.")
    queued_jobs: int
    running_jobs: int


class HeldKey(ApiKey):
    """The key that a request came with."""

    in_force: KeyLimits = Field(description="The limits that hold: its own, else the service's. Null is no limit.")
    used: Used


class Problem(Resource):
    """An error as RFC 9457 problem+json."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    blame: Blame | str = Field(union_mode="left_to_right")
    retryable: bool
    param: str | None = None
    errors: list[FieldError] = []
    allowed_actions: list[Action | str] | None = Field(default=None, description="What the job's status allows.")
    request_id: str | None = None


def is_terminal(status: str) -> bool:
    """Whether a status, possibly of a newer service, is known to be final."""
    return status in TERMINAL
