"""Settings of API and worker, read from the environment (prefix `STILLHOUSE_`)."""

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
GIB = 1024 * MIB


class Settings(BaseSettings):
    """Three URLs say where everything is; the rest has defaults that serve one machine."""

    model_config = SettingsConfigDict(env_prefix="STILLHOUSE_", frozen=True, extra="ignore")

    database_url: str = Field(
        default="sqlite:///.stillhouse/stillhouse.db", description="SQLAlchemy URL: SQLite, or postgresql+psycopg://."
    )
    broker_url: str = Field(
        default="redis://localhost:6379/0", description="Redis or Valkey: redis://, rediss:// or redis+socket://."
    )
    blob_url: str = Field(default="file:.stillhouse/blobs", description="Where big files live: file:FOLDER.")

    # The API
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8765, description="Port that the API listens on.")
    allowed_hosts: list[str] = Field(
        default=["localhost", "127.0.0.1", "[::1]"],
        description="Host names that requests may be addressed to, `*` for any. A browser's Origin must name one too.",
    )
    bootstrap_key: SecretStr | None = Field(
        default=None, description="Secret of an administrator's API key that exists from the start."
    )
    bootstrap_key_file: Path | None = Field(default=None, description="File that holds the bootstrap key.")
    default_queue: str = Field(default="cpu", description="Queue of jobs whose device is auto: cpu or gpu.")
    max_spec_bytes: int = Field(default=MIB, description="Largest job spec that is read.")
    max_upload_bytes: int = Field(default=50 * GIB, description="Largest upload that is taken.")
    min_free_bytes: int = Field(default=256 * MIB, description="Room on disk that an upload must leave.")
    upload_hours: float = Field(
        default=24.0, gt=0, description="How long an unfinished resumable upload is kept after its last byte."
    )
    idempotency_hours: float = Field(default=24.0, description="How long an Idempotency-Key is remembered.")
    plan_hours: float = Field(default=24.0, description="How long a plan is kept.")
    artifact_days: float | None = Field(
        default=None, gt=0,
        description="How long teachers, data and results are kept after their last use; for ever when left out.",
    )
    history_days: float | None = Field(
        default=30.0, gt=0,
        description="How long after its end a job keeps every line of progress and every point of its metrics.",
    )
    retention_seconds: float = Field(default=600.0, description="Time between two rounds of retention.")
    stalled_seconds: float = Field(default=60.0, description="Silence after which a running job is told as stalled.")

    # The worker
    lease_seconds: float = Field(default=30.0, description="How long a silent worker keeps its job.")
    grace_seconds: float = Field(
        default=20.0, description="How long a trainer that is asked to stop may take to write its checkpoint."
    )
    max_losses: int = Field(default=5, description="Lost workers or trainers after which a job fails.")
    reap_seconds: float = Field(default=10.0, description="Time between two rounds of the reaper.")
    ring_again_seconds: float = Field(default=30.0, description="Age of a ring after which a queued job is rung again.")
    slots: int = Field(
        default=1, ge=1,
        description="Devices that one worker trains on: so many jobs side by side, or fewer that take several each.",
    )
    queues: list[str] = Field(default=["cpu"], description="Devices that the worker serves: cpu, gpu.")
    engine: str = Field(default="worker.engine.pipeline", description="Module whose `run` the trainer calls.")
    scratch_folder: Path = Field(
        default=Path(".stillhouse/scratch"), description="Where trainers write; one folder per attempt, gone after it."
    )
    cache_folder: Path = Field(
        default=Path(".stillhouse/cache"), description="Where inputs are kept for the next job that reads them."
    )
    cache_bytes: int = Field(
        default=20 * GIB, description="Size from which the inputs that were not used for longest are dropped."
    )
    soft_label_days: float = Field(
        default=30.0, gt=0, description="How long soft labels are kept after a job last used them."
    )
    soft_label_bytes: int = Field(
        default=20 * GIB, ge=0,
        description="Most soft labels kept for an owner; those that were not used for longest are dropped.",
    )
    max_database_model_bytes: int = Field(
        default=256 * MIB, description="Largest result file kept in the database; bigger ones go to the blob store."
    )


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
