"""Rings a worker: a Celery message that holds only a job's id. The row is the job; a lost ring is rung again."""

import logging
from collections.abc import Iterator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Self

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from redis.exceptions import RedisError

from stillhouse.contract.spec import JobSpec

TASK = "stillhouse.run"
# Where so many rings wait, one more wakes nobody: whoever is free has taken one, and claims again after each job.
ENOUGH_RINGS = 100
_CONNECT_SECONDS = 2

log = logging.getLogger(__name__)


def queue_of(spec: JobSpec, default_queue: str) -> str:
    """The queue whose workers have the device that the job asks for."""
    return {"auto": default_queue, "cpu": "cpu", "cuda": "gpu"}[spec.device]


def plans_of(queue: str) -> str:
    """The queue of plans beside a queue of jobs: heard by the same workers, on a slot that no job takes."""
    return "plans" if queue == "cpu" else f"plans-{queue}"


@dataclass(frozen=True)
class Ring:
    """That a job waits in a queue; and for the log, on whose behalf it is rung."""

    queue: str
    job_id: str
    context: Context = field(default_factory=copy_context)


def ring(broker_url: str, queue: str, job_id: str) -> None:
    """Tell the workers of a queue that a job waits. Call it after the commit; never raises for want of a broker."""
    _ring_all(broker_url, [Ring(queue, job_id)])


def _ring_all(broker_url: str, rings: Sequence[Ring]) -> None:
    app = _producer(broker_url)
    try:
        with app.producer_or_acquire() as producer, producer.batch():
            wanted = _wanted(producer, rings)
            for one in wanted:
                app.send_task(
                    TASK, args=[one.job_id], queue=one.queue, producer=producer, retry=False, ignore_result=True
                )
    except (OperationalError, RedisError, OSError) as error:
        named = ", ".join(one.job_id for one in rings)
        log.warning("no worker was rung for %s; the reaper will ring again: %s", named, error)
        return
    for one in wanted:
        one.context.run(log.info, "rang for a worker", extra={"job_id": one.job_id, "queue": one.queue})


def _wanted(producer: Producer, rings: Sequence[Ring]) -> list[Ring]:
    """Those of the rings that their queues have room for."""
    room = {queue: ENOUGH_RINGS - _num_waiting(producer, queue) for queue in {one.queue for one in rings}}
    found: list[Ring] = []
    for one in rings:
        if room[one.queue] > 0:
            room[one.queue] -= 1
            found.append(one)
    return found


def _num_waiting(producer: Producer, queue: str) -> int:
    """How many rings nobody has heard yet."""
    # The channel's own way to ask makes a new client, as much work as to ring.
    found: int = producer.channel.client.llen(queue)
    return found


class Ringer:
    """Rings from a thread of its own, while it is open: whoever submits waits for no broker.

    What waits while it rings is rung together, so that a broker out of reach is asked once for all of it. Safe to share
    between threads.
    """

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._waiting: SimpleQueue[Ring | None] = SimpleQueue()
        self._thread = Thread(target=self._ring_until_closed, name="ringer", daemon=True)

    def __enter__(self) -> Self:
        """Begin to ring."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ring for all that waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def ring(self, queue: str, job_id: str) -> None:
        """Tell the workers of a queue, soon, that a job waits. Call it after the commit."""
        self._waiting.put(Ring(queue, job_id))

    def _ring_until_closed(self) -> None:
        is_closed = False
        while not is_closed:
            found = [self._waiting.get(), *self._at_once()]
            is_closed = None in found
            rings = [one for one in found if one is not None]
            if rings:
                _ring_all(self._broker_url, rings)

    def _at_once(self) -> Iterator[Ring | None]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except Empty:
                return


@cache
def _producer(broker_url: str) -> Celery:
    app = Celery("stillhouse", broker=broker_url, backend=None, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_timeout=_CONNECT_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": _CONNECT_SECONDS, "socket_timeout": _CONNECT_SECONDS, "max_retries": 0,
        },
    )
    return app
