"""Statements about webhooks.

Whoever locks both locks the webhook before its deliveries, as deleting it does.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Select, Update, and_, case, delete, func, or_, select, update
from sqlalchemy.sql.dml import ReturningDelete

from app.kit.clock import now
from app.kit.paging import after_cursor
from app.webhooks.models import AttemptRow, DeliveryRow, WebhookRow
from stillhouse.contract.webhooks import DeliveryStatus


def owned(owner: str, webhook_id: str) -> Select[WebhookRow]:
    """The webhook, if it is the owner's."""
    return select(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.owner == owner)


def owned_for_change(owner: str, webhook_id: str) -> Select[WebhookRow]:
    """The webhook, if it is the owner's, locked; deliveries can be added to it meanwhile."""
    return owned(owner, webhook_id).with_for_update(key_share=True)


def for_change(webhook_id: str) -> Select[str]:
    """The webhook's id, locked; deliveries can be added to it meanwhile."""
    return select(WebhookRow.id).where(WebhookRow.id == webhook_id).with_for_update(key_share=True)


def listed(owner: str, *, cursor: str | None) -> Select[WebhookRow]:
    """The owner's webhooks, newest first. Raises InvalidCursorError."""
    statement = select(WebhookRow).where(WebhookRow.owner == owner)
    if cursor is not None:
        statement = statement.where(after_cursor(WebhookRow.created_at, WebhookRow.id, cursor))
    return statement.order_by(WebhookRow.created_at.desc(), WebhookRow.id.desc())


def count(owner: str) -> Select[int]:
    """How many webhooks the owner has."""
    return select(func.count()).select_from(WebhookRow).where(WebhookRow.owner == owner)


def enabled(owner: str) -> Select[WebhookRow]:
    """The owner's webhooks that are sent something, locked against deletion until the commit."""
    return select(WebhookRow).where(
        WebhookRow.owner == owner, WebhookRow.disabled_at.is_(None)
    ).with_for_update(read=True, key_share=True)


def deliveries(webhook_id: str, *, status: DeliveryStatus | None, cursor: str | None) -> Select[DeliveryRow]:
    """The webhook's deliveries, newest first. Raises InvalidCursorError."""
    statement = select(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id)
    if status is not None:
        statement = statement.where(DeliveryRow.status == status)
    if cursor is not None:
        statement = statement.where(after_cursor(DeliveryRow.created_at, DeliveryRow.id, cursor))
    return statement.order_by(DeliveryRow.created_at.desc(), DeliveryRow.id.desc())


def attempts(delivery_ids: Sequence[str]) -> Select[AttemptRow]:
    """What was tried for these deliveries, oldest first."""
    return select(AttemptRow).where(AttemptRow.delivery_id.in_(delivery_ids)).order_by(AttemptRow.number)


def due(busy: Collection[str]) -> Select[DeliveryRow]:
    """The delivery that has been due for longest and that nobody is sending, but for receivers that are busy."""
    return (
        select(DeliveryRow)
        .where(
            DeliveryRow.status == "pending", DeliveryRow.next_attempt_at <= now(),
            or_(DeliveryRow.lease_until.is_(None), DeliveryRow.lease_until < now()),
            DeliveryRow.webhook_id.not_in(list(busy)),
        )
        .order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
        .limit(1)
    )


def due_for_change(busy: Collection[str]) -> Select[DeliveryRow]:
    """The same, locked; one that another has locked is passed over."""
    return due(busy).with_for_update(skip_locked=True)


def receiver(webhook_id: str) -> Select[WebhookRow, str | None]:
    """The webhook, and its old secret while that still signs."""
    valid = case((WebhookRow.old_secret_until > now(), WebhookRow.old_secret))
    return select(WebhookRow, valid).where(WebhookRow.id == webhook_id)


def note_success(webhook_id: str) -> Update:
    """The receiver took something."""
    return update(WebhookRow).where(WebhookRow.id == webhook_id).values(failing_since=None)


def note_failure(webhook_id: str) -> Update:
    """The receiver did not; the first time after a success counts."""
    return update(WebhookRow).where(WebhookRow.id == webhook_id).values(
        failing_since=func.coalesce(WebhookRow.failing_since, now())
    )


def failing_for(webhook_id: str, seconds: float) -> Select[str]:
    """The webhook's id, if its receiver has taken nothing for so long."""
    return select(WebhookRow.id).where(WebhookRow.id == webhook_id, WebhookRow.failing_since <= now(-seconds))


def sent_by(delivery_id: str, attempt: int) -> ColumnElement[bool]:
    """Whether this attempt is still the newest of the delivery: the fence."""
    return and_(DeliveryRow.id == delivery_id, DeliveryRow.num_attempts == attempt)


def disable(webhook_id: str, reason: str) -> Update:
    """Send nothing more; the first reason counts."""
    return update(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None)).values(
        disabled_at=now(), disabled_reason=reason
    )


def give_up(webhook_id: str) -> Update:
    """Let all that waits to be sent to the webhook count as failed."""
    return update(DeliveryRow).where(
        DeliveryRow.webhook_id == webhook_id, DeliveryRow.status == "pending"
    ).values(status="failed")


def forget_deliveries(older_than_seconds: float, limit: int) -> ReturningDelete[str]:
    """Delete deliveries of so long ago that wait for nothing; their attempts go with them."""
    old = (
        select(DeliveryRow.id)
        .where(DeliveryRow.created_at < now(-older_than_seconds), DeliveryRow.status != "pending")
        .order_by(DeliveryRow.created_at)
        .limit(limit)
    )
    return delete(DeliveryRow).where(DeliveryRow.id.in_(old)).returning(DeliveryRow.id)


def forget_old_secrets() -> Update:
    """Drop secrets that no longer sign."""
    return update(WebhookRow).where(WebhookRow.old_secret_until <= now()).values(
        old_secret=None, old_secret_until=None
    )
