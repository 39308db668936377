"""What the service counts, for Prometheus. One registry per application."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.jobs import queries
from app.jobs.watching import Watching
from app.kit.database import Database
from app.queue import plans_of
from app.storage.watched import StoreNumbers
from stillhouse.contract.status import UNENDED, Status

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
# A queue or a status without a job is told as 0, so that curves have no holes.
_QUEUES: Final = tuple(name for queue in ("cpu", "gpu") for name in (queue, plans_of(queue)))
_STATUSES: Final = tuple(status for status in Status if status in UNENDED)


class Numbers:
    """Requests as they were answered, what stores did, and jobs and watchers as they stand when asked."""

    def __init__(self, db: Database, watching: Watching, *, stalled_seconds: float) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(db, stalled_seconds))
        self.stores: Final = StoreNumbers(self._registry)
        self._requests = Histogram(
            "stillhouse_http_request_seconds", "Time from a request to the end of its answer.",
            ["method", "route", "status"], buckets=_SECONDS, registry=self._registry,
        )
        Gauge(
            "stillhouse_watchers", "Streams of events that are open, and requests that wait for the end of a job.",
            registry=self._registry,
        ).set_function(lambda: watching.num_watchers)

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the template and `method` a known one: each word is a series for good."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)


class _Standing(NamedTuple):
    num: int = 0
    oldest: datetime | None = None
    num_stalled: int = 0
    num_expired: int = 0


class _Jobs(Collector):
    def __init__(self, db: Database, stalled_seconds: float) -> None:
        self._db = db
        self._stalled_seconds = stalled_seconds

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the numbers from the database: of what has not ended, or it would take longer with every job."""
        with self._db.reading() as session:
            rows = session.execute(queries.standing(self._stalled_seconds)).all()
        jobs = _family("stillhouse_jobs", "Jobs and plans that have not ended.", "queue", "status")
        ages = _family("stillhouse_queue_age_seconds", "How long the oldest queued job has waited.", "queue")
        stalled = _family("stillhouse_stalled_jobs", "Running jobs that were silent for too long.", "queue")
        expired = _family("stillhouse_expired_leases", "Jobs of lost workers that no reaper took back yet.", "queue")
        found = {
            (queue, status): _Standing(num, oldest, num_stalled, num_expired)
            for queue, status, num, oldest, num_stalled, num_expired in rows
        }
        for queue in sorted({*_QUEUES, *(queue for queue, _ in found)}):
            of_queue = {status: found.get((queue, status), _Standing()) for status in _STATUSES}
            for status, standing in of_queue.items():
                jobs.add_metric([queue, status], standing.num)
            ages.add_metric([queue], _age(of_queue[Status.QUEUED].oldest))
            stalled.add_metric([queue], sum(standing.num_stalled for standing in of_queue.values()))
            expired.add_metric([queue], sum(standing.num_expired for standing in of_queue.values()))
        yield from (jobs, ages, stalled, expired)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not read the database."""
        return iter(())


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _age(oldest: datetime | None) -> float:
    return max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else 0.0
