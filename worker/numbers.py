"""What one worker counts, for Prometheus, and where it tells it."""

import logging
import time
from collections.abc import Callable
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from app.settings import Settings
from app.storage.watched import StoreNumbers
from stillhouse.contract.failures import Failure, every_failure
from stillhouse.contract.status import Kind
from worker.slots import Slots

ReaperAction = Literal["taken_back", "rung", "plan_forgotten", "soft_labels_dropped", "blob_deleted"]
_PHASE_SECONDS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 36000.0)
_CODES: Final = frozenset(kind.code for kind in every_failure())

log = logging.getLogger(__name__)


class Numbers:
    """The counters of one worker. Labels are of closed sets: no id, and nothing that a trainer made up."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.stores: Final = StoreNumbers(self.registry)
        ProcessCollector(registry=self.registry)
        self._slots = self._gauge("stillhouse_slots", "Slots of this worker.", "kind")
        self._busy_slots = self._gauge("stillhouse_busy_slots", "Slots of this worker that a job holds.", "kind")
        self._claims = self._counter("stillhouse_claims_total", "Jobs that this worker claimed.", "queue")
        self._attempts = self._counter(
            "stillhouse_attempts_total", "Attempts of this worker, by how they ended.", "outcome", "reason"
        )
        self._trainer_starts = self._counter("stillhouse_trainer_starts_total", "Trainers started.", "outcome")
        self._events = self._counter("stillhouse_events_recorded_total", "Events of trainers recorded.", "type")
        self._merged = self._counter(
            "stillhouse_events_merged_total", "Events that took the place of an older one, as the database was slow.",
            "type",
        )
        self._steps = self._counter("stillhouse_steps_total", "Training steps that trainers told of.", "phase")
        self._phase_seconds = Histogram(
            "stillhouse_phase_seconds", "Time that a job spent in a phase, to its end.", ["phase"],
            buckets=_PHASE_SECONDS, registry=self.registry,
        )
        self._lease_expiries = self._counter(
            "stillhouse_lease_expiries_total", "Jobs that this worker's reaper took from workers that were lost."
        )
        self._renewals = self._counter("stillhouse_lease_renewals_total", "Renewals of leases.", "outcome")
        self._rounds = self._counter("stillhouse_reaper_rounds_total", "Rounds of the reaper.", "outcome")
        self._actions = self._counter("stillhouse_reaper_actions_total", "What the reaper's rounds did.", "action")
        self._last_round = self._gauge(
            "stillhouse_reaper_last_round_timestamp_seconds", "When the reaper last made a whole round, or started."
        )
        self._last_round.set_to_current_time()
        self._begin_at_zero()

    def watch_slots(self, kind: Kind, slots: Slots) -> None:
        """Tell of these slots whenever somebody asks."""
        self._slots.labels(kind).set(slots.num)
        self._busy_slots.labels(kind).set_function(lambda: slots.num - slots.num_free)

    def claimed(self, queue: str) -> None:
        """Count a claim."""
        self._claims.labels(queue).inc()

    def attempted(self, outcome: str, failure: Failure | None = None) -> None:
        """Count an attempt that has ended, with the code of what went wrong in the job."""
        code = "" if failure is None else failure.code
        self._attempts.labels(outcome, code if code in _CODES or not code else "other").inc()

    def started_trainer(self, *, well: bool) -> None:
        """Count a trainer, or that there was none."""
        self._trainer_starts.labels("started" if well else "failed").inc()

    def recorded(self, event_type: str) -> None:
        """Count an event in a job's log."""
        self._events.labels(event_type).inc()

    def merged(self, event_type: str) -> None:
        """Count an event that replaced an older one."""
        self._merged.labels(event_type).inc()

    def stepped(self, phase: str, num_steps: int) -> None:
        """Count training steps."""
        self._steps.labels(phase).inc(num_steps)

    def passed(self, phase: str, seconds: float) -> None:
        """Count a phase that a job has behind it."""
        self._phase_seconds.labels(phase).observe(seconds)

    def renewed(self, outcome: Literal["renewed", "failed", "fenced"]) -> None:
        """Count a renewal of a lease, or a try."""
        self._renewals.labels(outcome).inc()

    def acted(self, action: ReaperAction, num: int = 1) -> None:
        """Count what the reaper did."""
        self._actions.labels(action).inc(num)
        if action == "taken_back":
            self._lease_expiries.inc(num)

    def rounded(self, *, well: bool) -> None:
        """Count a round of the reaper."""
        self._rounds.labels("done" if well else "failed").inc()
        if well:
            self._last_round.set(time.time())

    def _begin_at_zero(self) -> None:
        """Have what is to come be there before: the increase of a series that begins with 1 is nothing."""
        for outcome in ("succeeded", "failed", "cancelled", "paused", "drained", "lost", "fenced", "let_go"):
            self._attempts.labels(outcome, "")
        for action in get_args(ReaperAction):
            self._actions.labels(action)
        for counter, outcomes in (
            (self._trainer_starts, ("started", "failed")), (self._rounds, ("done", "failed")),
            (self._renewals, ("renewed", "failed", "fenced")),
        ):
            for outcome in outcomes:
                counter.labels(outcome)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


def serve(numbers: Numbers, settings: Settings) -> Callable[[], None]:
    """Tell the numbers on the port of the settings, if they name one, until the returned function is called.

    Raises OSError when the port is taken, or the host is none of this machine's.
    """
    if settings.metrics_port is None:
        return lambda: None
    server, thread = start_http_server(settings.metrics_port, settings.metrics_host, numbers.registry)
    log.info("metrics are served", extra={"host": settings.metrics_host, "port": server.server_port})

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
