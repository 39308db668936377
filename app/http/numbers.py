"""What the service counts, for Prometheus. One registry per application."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.jobs import queries
from app.kit.database import Database
from stillhouse.contract.status import Kind, Status

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


class Numbers:
    """Requests as they were answered, and jobs as they stand when asked."""

    def __init__(self, db: Database) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(db))
        self._requests = Histogram(
            "stillhouse_http_request_seconds", "Time from a request to the end of its answer.",
            ["method", "route", "status"], buckets=_SECONDS, registry=self._registry,
        )

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the template, so that ids do not make series."""
        self._requests.labels(method if method.isalpha() else "?", route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    def __init__(self, db: Database) -> None:
        self._db = db

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the numbers from the database."""
        with self._db.reading() as session:
            jobs, plans = _counts(session, "job"), _counts(session, "plan")
            oldest = session.scalars(queries.oldest_queued()).one()
        yield _by_status("stillhouse_jobs", "Jobs by status.", jobs)
        yield _by_status("stillhouse_plans", "Plans by status.", plans)
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        yield GaugeMetricFamily("stillhouse_queue_age_seconds", "Age of the oldest queued job.", value=max(0.0, age))

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not read the database."""
        return iter(())


def _counts(session: Session, kind: Kind) -> dict[Status, int]:
    return {status: count for status, count in session.execute(queries.count_by_status(kind))}  # noqa: C416 - rows, not pairs


def _by_status(name: str, text: str, counts: Mapping[Status, int]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(name, text, labels=["status"])
    for status in Status:
        found.add_metric([status], counts.get(status, 0))
    return found
