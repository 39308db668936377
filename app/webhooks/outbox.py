"""Writes events down for whoever is to be sent them, in the transaction that made them happen. So none is lost."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.jobs.models import JobRow
from app.kit.ids import new_id
from app.webhooks import queries
from app.webhooks.models import DeliveryRow, WebhookRow
from stillhouse.contract.failures import Failure
from stillhouse.contract.status import Status
from stillhouse.contract.webhooks import JobNews, WebhookEvent, WebhookMessage

_EVENTS = {
    Status.RUNNING: WebhookEvent.JOB_STARTED,
    Status.PAUSED: WebhookEvent.JOB_PAUSED,
    Status.SUCCEEDED: WebhookEvent.JOB_SUCCEEDED,
    Status.FAILED: WebhookEvent.JOB_FAILED,
    Status.CANCELLED: WebhookEvent.JOB_CANCELLED,
}
_RESULTS = ("model", "report")
# The body stays thin; GET /jobs/{id} tells the whole message.
_LONGEST_MESSAGE = 1024


def announce(session: Session, job: JobRow, at: datetime) -> None:
    """Write down that the job has its present status since `at`, for every webhook that wants to know."""
    event = _event(job)
    if event is None:
        return
    wanted = [row for row in session.scalars(queries.enabled(job.owner)) if not row.events or event in row.events]
    if wanted:
        add(session, wanted, WebhookMessage(type=event, timestamp=at, data=_news(job)))


def add(session: Session, webhooks: Sequence[WebhookRow], message: WebhookMessage) -> list[str]:
    """Deliveries of one message to these webhooks, due at once. Returns their ids."""
    message_id, body = new_id("msg"), message.model_dump_json(exclude_none=True)
    rows = [
        {
            "id": new_id("dlv"), "webhook_id": webhook.id, "message_id": message_id, "type": str(message.type),
            "body": body,
        }
        for webhook in webhooks
    ]
    session.execute(insert(DeliveryRow), rows)
    return [row["id"] for row in rows]


def _event(job: JobRow) -> WebhookEvent | None:
    # A plan is answered to who asked for it. A job that is begun again has not started anew.
    if job.kind != "job" or (job.status is Status.RUNNING and job.attempt > 1):
        return None
    return _EVENTS.get(job.status)


def _news(job: JobRow) -> JobNews:
    error = None if job.error is None else Failure.model_validate(job.error)
    links = {"job": f"/jobs/{job.id}", "events": f"/jobs/{job.id}/events"}
    if job.status is Status.SUCCEEDED:
        links |= {name: f"/jobs/{job.id}/{name}" for name in _RESULTS}
    return JobNews(
        id=job.id, name=job.name, labels=job.labels, status=job.status, attempt=job.attempt, links=links,
        error=error and error.model_copy(update={"message": error.message[:_LONGEST_MESSAGE]}),
    )
