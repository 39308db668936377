"""Rings a worker: a Celery message that holds only a job's id. The row is the job; a lost ring is rung again."""

import logging
from functools import cache

from celery import Celery
from kombu.exceptions import OperationalError

from stillhouse.contract.spec import JobSpec

TASK = "stillhouse.run"
_CONNECT_SECONDS = 2

log = logging.getLogger(__name__)


def queue_of(spec: JobSpec, default_queue: str) -> str:
    """The queue whose workers have the device that the job asks for."""
    return {"auto": default_queue, "cpu": "cpu", "cuda": "gpu"}[spec.device]


def plans_of(queue: str) -> str:
    """The queue of plans beside a queue of jobs: heard by the same workers, on a slot that no job takes."""
    return "plans" if queue == "cpu" else f"plans-{queue}"


def ring(broker_url: str, queue: str, job_id: str) -> None:
    """Tell the workers of a queue that a job waits. Call it after the commit; never raises for want of a broker."""
    try:
        _producer(broker_url).send_task(TASK, args=[job_id], queue=queue, retry=False, ignore_result=True)
        log.info("rang for a worker", extra={"job_id": job_id, "queue": queue})
    except (OperationalError, OSError) as error:
        log.warning("no worker was rung for %s; the reaper will ring again: %s", job_id, error)


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
