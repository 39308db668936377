"""Jobs as the API tells them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.artifacts.models import ArtifactRow
from app.jobs.models import JobAttemptRow, JobEventRow, JobRow
from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.failures import Failure
from stillhouse.contract.recipes import applied
from stillhouse.contract.report import AppliedRecipe
from stillhouse.contract.resources import Attempt, AttemptLog, Checkpoint, Job, JobFile, Progress, QueuePlace
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.spec.job import MAX_LABELS, JobName, LabelKey, LabelValue, Priority
from stillhouse.contract.status import LEASED, TERMINAL, actions


class JobChange(BaseModel):
    """A merge patch (RFC 7396) of a job: what is left out stays, and null removes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: JobName | None = Field(default=None, description="A name for people.")
    labels: dict[LabelKey, LabelValue | None] | None = Field(
        default=None, max_length=2 * MAX_LABELS,
        description="Labels to add or to replace; null removes one. Others stay. Null in place of all removes all.",
    )
    priority: Annotated[Priority | None, AfterValidator(lambda value: value or 0)] = Field(
        default=None, description="Only of a job that has not ended. Null is 0.",
    )


def job_resource(
    row: JobRow, *, stalled_seconds: float, files: Mapping[str, ArtifactRow] | None = None,
    place: QueuePlace | None = None, recipe: AppliedRecipe | None = None,
) -> Job:
    """The job for its owner. `files`, `place` and `recipe` are left out of lists."""
    return Job(
        id=row.id, retry_of=row.retry_of, name=row.name, labels=row.labels, priority=row.priority,
        status=row.status, terminal=row.status in TERMINAL, keep=row.keep,
        phase=row.phase, stalled=_is_stalled(row, stalled_seconds), attempt=row.attempt, losses=row.losses,
        queue=place, progress=_progress(row),
        error=None if row.error is None else Failure.model_validate(row.error),
        allowed_actions=sorted(actions(row.status, row.kind, row.keep)),
        files=[_job_file(role, artifact) for role, artifact in (files or {}).items()],
        spec=row.spec, recipe=recipe, seed=row.spec.get("seed", 0), created_at=row.created_at,
        started_at=row.started_at, finished_at=row.finished_at, last_event_at=row.last_event_at,
    )


def applied_recipe(row: JobRow) -> AppliedRecipe | None:
    """What the job's recipe came to, as its report tells it; before there is one, as a worker of today would take it.

    None where neither tells: a spec of another version of the service.
    """
    if row.report is not None:
        told = row.report.get("recipe")
        return None if told is None else AppliedRecipe.model_validate(told)
    return _applied(json.dumps(row.spec))


@lru_cache(maxsize=256)
def _applied(spec: str) -> AppliedRecipe | None:
    """What the recipe of a spec in JSON comes to. A job that is watched is asked for again and again."""
    try:
        return applied(JobSpec.model_validate_json(spec))
    except ValidationError:
        return None


def _is_stalled(row: JobRow, seconds: float) -> bool:
    if row.status not in LEASED or row.last_event_at is None:
        return False
    return datetime.now(UTC) - row.last_event_at > timedelta(seconds=seconds)


def _progress(row: JobRow) -> Progress:
    return Progress(
        percent=row.percent, step=row.step, total_steps=row.total_steps, samples_per_second=row.samples_per_second,
        eta_seconds=row.eta_seconds,
        metrics={name: value for name, value in row.latest_metrics.items() if value is not None},
    )


def _job_file(role: str, artifact: ArtifactRow) -> JobFile:
    return JobFile(
        role=role, artifact_id=artifact.id, format=artifact.format, size=artifact.size, sha256=artifact.sha256
    )


def attempt_resource(row: JobAttemptRow) -> Attempt:
    """An attempt, without what its trainer printed."""
    until = row.ended_at or datetime.now(UTC)
    return Attempt(
        attempt=row.attempt, worker=row.worker, started_at=row.started_at, ended_at=row.ended_at,
        seconds=max(0.0, (until - row.started_at).total_seconds()), outcome=row.outcome, reason=row.reason,
    )


def checkpoint_resource(job: JobRow, row: JobEventRow, artifact: ArtifactRow) -> Checkpoint:
    """A stored checkpoint, as the log tells of it."""
    event = CheckpointSaved.model_validate(row.body)
    return Checkpoint(
        artifact_id=artifact.id, attempt=row.attempt, phase=event.phase, step=event.step, created_at=row.at,
        size=artifact.size, sha256=artifact.sha256, is_last=artifact.id == job.checkpoint_artifact_id,
        metrics=row.body.get("metrics", {}),  # as JSON has it: null where it was not finite
        evaluated_step=event.evaluated_step, best_step=event.best_step,
    )


def attempt_log(row: JobAttemptRow) -> AttemptLog:
    """What the trainer of an attempt printed."""
    return AttemptLog(
        attempt=row.attempt, started_at=row.started_at, ended_at=row.ended_at, outcome=row.outcome,
        truncated=row.log_truncated, text=row.log,
    )
