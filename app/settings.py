"""Settings of API and worker, read from the environment (prefix `STILLHOUSE_`)."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.kit.logs import LogFormat, LogLevel

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
    blob_url: str = Field(
        default="file:.stillhouse/blobs",
        description="Where big files live: file:FOLDER, or s3://BUCKET/PREFIX?endpoint=URL&region=NAME&path_style=true.",
    )
    s3_access_key: str | None = Field(
        default=None, description="Access key of the S3 bucket; without one, boto3 looks where it usually does."
    )
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret key that belongs to it.")
    s3_secret_key_file: Path | None = Field(default=None, description="File that holds the secret key.")

    log_format: LogFormat = Field(
        default="json", description="How API, worker and trainer write their log lines: json, or console for people."
    )
    log_level: LogLevel = Field(default="INFO", description="Least level that is logged: DEBUG, INFO, WARNING, ERROR.")

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
    max_header_bytes: int = Field(default=65536, ge=4096, description="Largest request line with headers.")
    client_seconds: float = Field(
        default=30.0, gt=0,
        description="Patience with a client that does not send its headers or its body, or does not read the answer.",
    )
    max_streams: int = Field(default=5000, ge=1, description="Most event streams of one API process at a time.")
    max_streams_per_key: int = Field(default=2000, ge=1, description="Of these, most that one key may have open.")
    max_requests_per_minute: int = Field(
        default=0, ge=0, description="Most requests with one key, at once and then each minute; 0: any."
    )
    max_stored_bytes: int = Field(
        default=0, ge=0, description="Most bytes that an owner may have stored and still upload or submit; 0: any."
    )
    max_queued_jobs: int = Field(default=0, ge=0, description="Most jobs of an owner that may wait at a time; 0: any.")
    max_running_jobs: int = Field(
        default=0, ge=0, description="Most jobs of an owner that run at a time (API and workers alike); 0: any."
    )
    max_runtime_seconds: float = Field(
        default=0.0, ge=0,
        description="Longest that a job may run, all its attempts together (API and workers alike); 0: any.",
    )
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
    webhook_log_days: float = Field(default=30.0, gt=0, description="How long deliveries of webhooks are kept.")
    webhook_allow_private: bool = Field(
        default=False,
        description="Let webhooks be sent to private and loopback addresses, to loopback without TLS too.",
    )
    stalled_seconds: float = Field(default=60.0, description="Silence after which a running job is told as stalled.")

    # The worker
    lease_seconds: float = Field(default=30.0, description="How long a silent worker keeps its job.")
    grace_seconds: float = Field(
        default=20.0, description="How long a trainer that is asked to stop may take to write its checkpoint."
    )
    stall_limit_seconds: float = Field(
        default=3600.0, ge=0,
        description="Silence after which a trainer is killed, and its job tried again as one whose trainer died; "
        "0: never.",
    )
    kept_checkpoints: int = Field(
        default=3, ge=1, description="Checkpoints kept of a job that has not ended, the newest ones."
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
    sandbox: Literal["required", "preferred", "off"] = Field(
        default="preferred",
        description="Sandbox of trainers (docs/security.md): all of it or no job, what the system has, or none.",
    )
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
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535,
        description="Port on which this worker tells its numbers to Prometheus, 0 for any; without it, none.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port. Whoever reaches it may read it.")


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
