"""Statements about what is old enough to go."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Delete, Select, and_, delete, exists, func, or_, select
from sqlalchemy.orm import aliased

from app.artifacts.models import ArtifactRow
from app.jobs.models import JobEventRow, JobFileRow, JobInputRow, JobMetricRow, JobRow
from app.kit.clock import now
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.status import TERMINAL

# Soft labels have limits of their own, and checkpoints end with their job.
_KINDS = ("teacher", "data", "model")
# What tells how far a job is, not what happened to it; values are among the metrics besides.
_PASSING = ("progress", "metrics")


def unused_artifacts(seconds: float, limit: int) -> Select[str]:
    """Artifacts that nobody has used for so long and no living job needs; locked."""
    return (
        select(ArtifactRow.id)
        .where(_is_unused(seconds))
        .order_by(ArtifactRow.created_at)
        .limit(limit)
        .with_for_update(of=ArtifactRow, skip_locked=True)
    )


def still_unused(artifact_ids: Sequence[str], seconds: float) -> Select[str]:
    """Those of the artifacts that nobody has come to use meanwhile."""
    return select(ArtifactRow.id).where(ArtifactRow.id.in_(artifact_ids), _is_unused(seconds))


def _is_unused(seconds: float) -> ColumnElement[bool]:
    reader, maker = aliased(JobRow), aliased(JobRow)
    return and_(
        ArtifactRow.kind.in_(_KINDS),
        func.coalesce(ArtifactRow.last_used_at, ArtifactRow.created_at) < now(-seconds),
        ~exists().where(
            JobInputRow.artifact_id == ArtifactRow.id, JobInputRow.job_id == reader.id, _lived(reader, seconds)
        ),
        ~exists().where(maker.id == ArtifactRow.job_id, _lived(maker, seconds)),
    )


def _lived(job: type[JobRow], seconds: float) -> ColumnElement[bool]:
    return or_(job.status.not_in(TERMINAL), job.finished_at >= now(-seconds))


def stray_artifacts(limit: int) -> Select[str]:
    """What an ended job made and nothing holds: stored by a worker that died before it could say so; locked."""
    reader, maker = aliased(JobRow), aliased(JobRow)
    return (
        select(ArtifactRow.id)
        .where(
            exists().where(maker.id == ArtifactRow.job_id, maker.status.in_(TERMINAL)),
            ~exists().where(JobFileRow.artifact_id == ArtifactRow.id),
            ~exists().where(
                JobInputRow.artifact_id == ArtifactRow.id, JobInputRow.job_id == reader.id,
                reader.status.not_in(TERMINAL),
            ),
            ~exists().where(SoftLabelsRow.artifact_id == ArtifactRow.id),
        )
        .limit(limit)
        .with_for_update(of=ArtifactRow, skip_locked=True)
    )


def next_to_thin(seconds: float) -> Select[str]:
    """A job that ended so long ago and whose log and metrics are whole yet; locked."""
    return (
        select(JobRow.id)
        .where(JobRow.status.in_(TERMINAL), JobRow.finished_at < now(-seconds), JobRow.thinned_at.is_(None))
        .order_by(JobRow.finished_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )


def passing_events(job_id: str, limit: int) -> Select[int]:
    """Places in the log of what is no milestone."""
    return select(JobEventRow.seq).where(JobEventRow.job_id == job_id, JobEventRow.type.in_(_PASSING)).limit(limit)


def forget_events(job_id: str, seqs: Sequence[int]) -> Delete:
    """Drop these lines of the log."""
    return delete(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq.in_(seqs))


def long_series(job_id: str, max_points: int) -> Select[str, str]:
    """Phase and name of a metric that has more points."""
    return (
        select(JobMetricRow.phase, JobMetricRow.name)
        .where(JobMetricRow.job_id == job_id)
        .group_by(JobMetricRow.phase, JobMetricRow.name)
        .having(func.count() > max_points)
        .limit(1)
    )


def series(job_id: str, phase: str, name: str) -> Select[int, float | None]:
    """Steps and values of one metric."""
    return select(JobMetricRow.step, JobMetricRow.value).where(
        JobMetricRow.job_id == job_id, JobMetricRow.phase == phase, JobMetricRow.name == name
    ).order_by(JobMetricRow.step)


def forget_points(job_id: str, phase: str, name: str, steps: Sequence[int]) -> Delete:
    """Drop these points of one metric."""
    return delete(JobMetricRow).where(
        JobMetricRow.job_id == job_id, JobMetricRow.phase == phase, JobMetricRow.name == name,
        JobMetricRow.step.in_(steps),
    )
