"""Webhooks as the API takes and tells them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl

from app.webhooks.models import AttemptRow, DeliveryRow, WebhookRow
from stillhouse.contract.webhooks import (
    CreatedWebhook,
    Delivery,
    DeliveryAttempt,
    Webhook,
    WebhookEvent,
    WebhookMessage,
)


def _distinct(events: list[WebhookEvent]) -> list[WebhookEvent]:
    return list(dict.fromkeys(events))


Events = Annotated[
    list[WebhookEvent], AfterValidator(_distinct),
    Field(max_length=32, description="What it is sent; empty means every event, also those of later releases."),
]
Name = Annotated[str | None, Field(min_length=1, max_length=128, description="What it is for, for people.")]
Url = Annotated[HttpUrl, Field(description="Where deliveries are posted to; https://, on a public address.")]


class NewWebhook(BaseModel):
    """A webhook to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: Url
    events: Events = []
    name: Name = None


class WebhookChange(BaseModel):
    """What is to be different about a webhook; what is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: Url = HttpUrl("https://unchanged.invalid")
    events: Events = []
    name: Name = None
    enabled: bool = Field(
        default=True, description="False: nothing is sent, and what waits fails. True: events from now on are sent."
    )


def webhook_resource(row: WebhookRow) -> Webhook:
    """The webhook, without its secret."""
    return Webhook(
        id=row.id, url=row.url, events=row.events, name=row.name, enabled=row.disabled_at is None,
        disabled_reason=row.disabled_reason, disabled_at=row.disabled_at, failing_since=row.failing_since,
        old_secret_until=row.old_secret_until, created_at=row.created_at,
    )


def created_webhook_resource(row: WebhookRow) -> CreatedWebhook:
    """The webhook with its secret."""
    return CreatedWebhook(**webhook_resource(row).model_dump(), secret=row.secret)


def delivery_resource(row: DeliveryRow, attempts: Sequence[AttemptRow]) -> Delivery:
    """The delivery with all that was tried."""
    return Delivery(
        id=row.id, webhook_id=row.webhook_id, message_id=row.message_id, type=row.type, status=row.status,
        next_attempt_at=row.next_attempt_at if row.status == "pending" else None,
        payload=WebhookMessage.model_validate_json(row.body), attempts=[_attempt(attempt) for attempt in attempts],
        created_at=row.created_at,
    )


def _attempt(row: AttemptRow) -> DeliveryAttempt:
    return DeliveryAttempt(
        number=row.number, started_at=row.started_at, seconds=row.seconds, outcome=row.outcome, status=row.status,
        detail=row.detail, answer=row.answer,
    )
