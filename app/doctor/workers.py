"""What the database tells of workers: who has jobs, when one last made its rounds, and what nobody comes for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy.orm import Session

from app.doctor import queries
from app.kit.database import Database
from app.settings import Settings
from stillhouse.contract.findings import Finding, ok, warning
from stillhouse.wording import seconds

# Rounds that may be missed before the silence is worth a word.
_ROUNDS: Final = 3


class _Queue(NamedTuple):
    """A queue as it stands."""

    name: str
    num_queued: int
    num_running: int
    num_workers: int
    oldest: datetime | None


def look(settings: Settings) -> Iterator[Finding]:
    """What was found. The database must be in reach, with its tables."""
    db = Database(settings.database_url)
    try:
        with db.reading() as session:
            now = session.scalars(queries.present()).one()
            yield _rounds(session, now, settings)
            for row in session.execute(queries.queues()):
                yield _queue(_Queue(*row), now, settings)
    finally:
        db.dispose()


def _rounds(session: Session, now: datetime, settings: Settings) -> Finding:
    """Each worker makes rounds; the first that comes when retention is due moves its stamp."""
    due, heard = session.scalars(queries.due()).one_or_none(), session.scalars(queries.last_heard()).one_or_none()
    told = f" A worker last began or ended a job {_ago(now, heard)}." if heard else " No worker has had a job yet."
    advice = "Start one, with these settings, on each machine that trains: python -m worker"
    if due is None:
        return warning("workers", f"No worker has ever made its rounds here.{told}", advice)
    overdue = (now - due).total_seconds()
    if overdue > _ROUNDS * settings.reap_seconds + settings.lease_seconds:
        return warning(
            "workers", f"No worker has made its rounds in the last {seconds(overdue)} at least.{told}",
            f"{advice} (python -m worker health tells of one that runs).",
        )
    return ok("workers", f"At least one made its rounds within the last {seconds(settings.retention_seconds)}.{told}")


def _queue(queue: _Queue, now: datetime, settings: Settings) -> Finding:
    check = f"queue {queue.name}"
    workers = f"{queue.num_running} running on {_number(queue.num_workers, 'worker')}"
    if queue.oldest is None:
        return ok(check, f"Nothing waits; {workers}.")
    waiting = f"{_number(queue.num_queued, 'job')} waiting, the oldest queued {_ago(now, queue.oldest)}; {workers}."
    patience = settings.ring_again_seconds + _ROUNDS * settings.reap_seconds
    if queue.num_running or (now - queue.oldest).total_seconds() <= patience:
        return ok(check, waiting)
    device = "gpu" if queue.name.endswith("gpu") else "cpu"
    return warning(
        check, f"{waiting} Nobody comes for them.",
        f'Start a worker that serves it: STILLHOUSE_QUEUES=["{device}"] python -m worker. If one does, look at what '
        "queue.reason of GET /jobs/{id} says: more devices than any worker has, or a limit of the owner.",
    )


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _ago(now: datetime, moment: datetime) -> str:
    return f"{seconds(max(0.0, (now.astimezone(UTC) - moment.astimezone(UTC)).total_seconds()))} ago"
