"""The row is the job; beside it stand its log, its metrics, its attempts and its files."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Index, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.kit.clock import now
from app.kit.database import Base, VerbatimJson
from stillhouse.contract.events import RecordedEvent
from stillhouse.contract.status import Keep, Kind, Status


class StatusType(TypeDecorator[Status]):
    """A status as text; a CHECK on the table, not a type of the database, says which exist."""

    impl = String(16)
    cache_ok = True

    def process_bind_param(self, value: Status | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's own
        """Store the name."""
        return None if value is None else Status(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Status | None:  # noqa: ARG002 - SQLAlchemy's own
        """Read the name."""
        return None if value is None else Status(value)


class JobRow(Base):
    """A job, or the plan of one."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(status.value) for status in Status)})", name="status"),
        CheckConstraint("kind IN ('job', 'plan')", name="kind"),
        CheckConstraint("num_devices > 0", name="num_devices"),
        CheckConstraint("keep IN ('best')", name="keep"),
        Index("ix_jobs_owner_created_at_id", "owner", "created_at", "id"),
        Index("ix_jobs_status_queue", "status", "queue"),
        Index("ix_jobs_status_lease_until", "status", "lease_until"),
        Index("ix_jobs_kind_created_at", "kind", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(String(8), server_default="job")
    owner: Mapped[str]
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]] = mapped_column(VerbatimJson)
    spec_version: Mapped[int]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0)
    # Slots of one worker that it takes, all at once.
    num_devices: Mapped[int] = mapped_column(server_default="1")
    # Running jobs of the owner at which it waits, where the key that submitted it says so; 0 is no limit.
    max_running: Mapped[int | None]
    status: Mapped[Status] = mapped_column(StatusType)
    # The fencing token: whoever writes for an older attempt is refused.
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    last_event_at: Mapped[datetime | None]
    phase: Mapped[str | None]
    percent: Mapped[float] = mapped_column(Float(53), default=0.0)
    step: Mapped[int | None] = mapped_column(BigInteger)
    total_steps: Mapped[int | None] = mapped_column(BigInteger)
    samples_per_second: Mapped[float | None] = mapped_column(Float(53))
    eta_seconds: Mapped[float | None] = mapped_column(Float(53))
    latest_metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None] = mapped_column(VerbatimJson)
    plan: Mapped[dict[str, Any] | None] = mapped_column(VerbatimJson)
    # No foreign key: artifacts point to jobs already. Both change in one transaction, in `life`.
    checkpoint_artifact_id: Mapped[str | None]
    # When retention took what is no milestone out of its log and thinned its metrics.
    thinned_at: Mapped[datetime | None]
    # The job whose spec this one repeats.
    retry_of: Mapped[str | None]
    # What a user who cancelled it wants all the same: who holds it, or claims it next, is to export the best student.
    keep: Mapped[Keep | None] = mapped_column(String(8))


class JobInputRow(Base):
    """An artifact that the job's spec names, or soft labels that it was lent. While it runs, they cannot be deleted."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    artifact_id: Mapped[str] = mapped_column(
        ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class JobFileRow(Base):
    """A stored result of the job."""

    __tablename__ = "job_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"), index=True)


class JobCheckpointRow(Base):
    """A checkpoint that is stored, by its line in the job's log. The last one is what the job resumes from."""

    __tablename__ = "job_checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"), index=True)


class JobEventRow(Base):
    """One line of the job's log."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int]
    at: Mapped[datetime]
    type: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(VerbatimJson)

    def recorded(self) -> RecordedEvent:
        """The event as watchers see it."""
        return RecordedEvent.model_validate(
            {"seq": self.seq, "at": self.at, "attempt": self.attempt, "event": self.body}
        )


class JobMetricRow(Base):
    """The value of a metric at a step. Null where it was not finite."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float(53))


class JobAttemptRow(Base):
    """One worker's go at the job, with what its trainer printed."""

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    log: Mapped[str] = mapped_column(default="")
    log_truncated: Mapped[bool] = mapped_column(default=False)
