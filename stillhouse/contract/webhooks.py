"""Webhooks: what receivers are sent, and what the API tells of it. Signed and sent by Standard Webhooks 1.0."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from stillhouse.contract.failures import Failure
from stillhouse.contract.resources import Resource
from stillhouse.contract.status import Status


class WebhookEvent(StrEnum):
    """What a webhook can be sent for."""

    JOB_STARTED = "job.started"
    JOB_PAUSED = "job.paused"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"


# Sent when its owner asks for it, whatever the webhook's events are.
TEST_EVENT = "webhook.test"

DeliveryStatus = Literal["pending", "delivered", "failed"]
# How one attempt ended. `lost`: the API process that sent it has ended; whether it arrived is not known.
Outcome = Literal["delivered", "refused", "redirected", "timed_out", "unreachable", "unsafe_address", "lost"]


class JobNews(Resource):
    """The job of an event, in short. GET /jobs/{id} tells all, and tells it as it is now."""

    id: str
    name: str | None = None
    labels: dict[str, str] = Field(default={})
    status: Status | str = Field(union_mode="left_to_right", description="As the event left it.")
    attempt: int = Field(description="How often a worker had begun this job.")
    error: Failure | None = Field(default=None, description="Only when failed.")
    links: dict[str, str] = Field(default={}, description="Paths at the service that tell more.")


class WebhookMessage(Resource):
    """The body of a delivery. The header `webhook-id` names the event, and stays the same when it is sent again."""

    type: WebhookEvent | str = Field(union_mode="left_to_right")
    timestamp: datetime = Field(description="When it happened, not when it was sent.")
    data: JobNews | dict[str, Any] = Field(
        union_mode="left_to_right", description="The job; of a test only the webhook's id."
    )


class Webhook(Resource):
    """A receiver of events, without its secret."""

    id: str
    url: str
    events: list[WebhookEvent | str] = Field(description="What it is sent; empty means every event.")
    name: str | None = None
    enabled: bool
    disabled_reason: str | None = Field(default=None, description="Why nothing is sent to it.")
    disabled_at: datetime | None = None
    failing_since: datetime | None = Field(
        default=None, description="When a delivery first failed after the last that did not."
    )
    old_secret_until: datetime | None = Field(
        default=None, description="Until when deliveries are signed with the secret before, too."
    )
    created_at: datetime


class CreatedWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and base64, as libraries of Standard Webhooks take it.")


class DeliveryAttempt(Resource):
    """One request to the receiver."""

    number: int
    started_at: datetime
    seconds: float | None = None
    outcome: Outcome | str | None = Field(
        default=None, union_mode="left_to_right", description="Null while it is being sent."
    )
    status: int | None = Field(default=None, description="HTTP status of the answer.")
    detail: str | None = Field(default=None, description="What went wrong.")
    answer: str | None = Field(default=None, description="The first KiB of the answer's body.")


class Delivery(Resource):
    """An event on its way to one receiver."""

    id: str
    webhook_id: str
    message_id: str = Field(description="The header `webhook-id`: one for an event, whoever receives it.")
    type: WebhookEvent | str = Field(union_mode="left_to_right")
    status: DeliveryStatus | str = Field(union_mode="left_to_right")
    next_attempt_at: datetime | None = Field(default=None, description="Only while pending.")
    payload: WebhookMessage
    attempts: list[DeliveryAttempt] = Field(description="Oldest first.")
    created_at: datetime
