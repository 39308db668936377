"""The API's side of webhooks. Every function works in the caller's transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.kit.clock import now
from app.kit.ids import new_id
from app.kit.paging import Slice, cut
from app.webhooks import addresses, outbox, queries
from app.webhooks.models import AttemptRow, DeliveryRow, WebhookRow
from app.webhooks.signing import new_secret
from stillhouse.contract.failures import (
    NotFoundError,
    TooManyWebhooksError,
    WebhookDisabledError,
    WebhookUrlRefusedError,
)
from stillhouse.contract.webhooks import TEST_EVENT, DeliveryStatus, WebhookEvent, WebhookMessage

MAX_WEBHOOKS = 10
BY_OWNER = "its owner disabled it"


def check_url(url: str, host: str, *, allow_private: bool) -> None:
    """Refuse what the URL alone shows to be no receiver. Names are looked up when something is sent.

    `host` is the URL's. Raises WebhookUrlRefusedError.
    """
    scheme, _, rest = url.partition("://")
    address = addresses.literal(host)
    is_loopback = address is not None and addresses.is_loopback(address)
    if scheme != "https" and not (allow_private and is_loopback):
        raise WebhookUrlRefusedError("Webhooks are sent over https only; give an https:// URL.", param="/url")
    if "@" in rest.partition("/")[0] or "#" in rest:
        raise WebhookUrlRefusedError(
            "The URL of a webhook has no user, password or fragment; put a token into its path or query.",
            param="/url",
        )
    word = None if address is None else addresses.refusal(address, allow_private=allow_private)
    if word is not None:
        raise WebhookUrlRefusedError(
            f"{host} is {word}; give a host that can be reached from the internet.", param="/url"
        )


def create(
    session: Session, *, owner: str, url: str, events: Sequence[WebhookEvent], name: str | None,
) -> WebhookRow:
    """A new webhook with its secret. Raises TooManyWebhooksError."""
    if session.scalars(queries.count(owner)).one() >= MAX_WEBHOOKS:
        raise TooManyWebhooksError(f"You have {MAX_WEBHOOKS} webhooks, which is the most; delete one first.")
    return session.scalars(
        insert(WebhookRow)
        .values(id=new_id("hook"), owner=owner, url=url, events=list(events), name=name, secret=new_secret())
        .returning(WebhookRow)
    ).one()


def page(session: Session, owner: str, *, cursor: str | None = None, limit: int = 50) -> Slice[WebhookRow]:
    """A page of the owner's webhooks, newest first. Raises InvalidCursorError."""
    return cut(session.scalars(queries.listed(owner, cursor=cursor).limit(limit + 1)).all(), limit)


def find(session: Session, owner: str, webhook_id: str) -> WebhookRow:
    """The owner's webhook. Raises NotFoundError."""
    row = session.scalars(queries.owned(owner, webhook_id)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def change(session: Session, owner: str, webhook_id: str, values: Mapping[str, object]) -> WebhookRow:
    """Give the webhook another URL, name or events; `enabled` has it sent events, or no more. Raises NotFoundError."""
    row = _locked(session, owner, webhook_id)
    columns = {name: value for name, value in values.items() if name != "enabled"}
    if values.get("enabled") is True:
        columns |= {"disabled_at": None, "disabled_reason": None, "failing_since": None}
    if columns:
        session.execute(update(WebhookRow).where(WebhookRow.id == row.id).values(columns))
    if values.get("enabled") is False:
        disable(session, row.id, BY_OWNER)
    session.refresh(row)
    return row


def disable(session: Session, webhook_id: str, reason: str) -> None:
    """Send the webhook nothing more: what waits for it counts as failed, and can be sent again by hand."""
    session.execute(queries.disable(webhook_id, reason))
    session.execute(queries.give_up(webhook_id))


def remove(session: Session, owner: str, webhook_id: str) -> None:
    """Delete the webhook, with all that was or is to be sent to it. Raises NotFoundError."""
    session.delete(_locked(session, owner, webhook_id))


def rotate(session: Session, owner: str, webhook_id: str, overlap_seconds: float) -> WebhookRow:
    """Give the webhook a new secret; the old one signs too for so long. Raises NotFoundError."""
    row = _locked(session, owner, webhook_id)
    is_kept = overlap_seconds > 0
    session.execute(update(WebhookRow).where(WebhookRow.id == row.id).values(
        secret=new_secret(), old_secret=WebhookRow.secret if is_kept else None,
        old_secret_until=now(overlap_seconds) if is_kept else None,
    ))
    session.refresh(row)
    return row


def test(session: Session, owner: str, webhook_id: str) -> DeliveryRow:
    """A delivery of a test event, whatever the webhook's events are. Raises NotFoundError or WebhookDisabledError."""
    row = _enabled(session, owner, webhook_id)
    message = WebhookMessage(type=TEST_EVENT, timestamp=datetime.now(UTC), data={"webhook_id": row.id})
    [delivery_id] = outbox.add(session, [row], message)
    return session.get_one(DeliveryRow, delivery_id)


def deliveries(
    session: Session, webhook_id: str, *, status: DeliveryStatus | None = None, cursor: str | None = None,
    limit: int = 50,
) -> Slice[DeliveryRow]:
    """A page of the webhook's deliveries, newest first. Raises InvalidCursorError."""
    statement = queries.deliveries(webhook_id, status=status, cursor=cursor)
    return cut(session.scalars(statement.limit(limit + 1)).all(), limit)


def attempts(session: Session, rows: Sequence[DeliveryRow]) -> Mapping[str, Sequence[AttemptRow]]:
    """What was tried for these deliveries, by their ids, oldest first."""
    found: defaultdict[str, list[AttemptRow]] = defaultdict(list)
    for attempt in session.scalars(queries.attempts([row.id for row in rows])):
        found[attempt.delivery_id].append(attempt)
    return found


def redeliver(session: Session, owner: str, webhook_id: str, delivery_id: str) -> DeliveryRow:
    """Send the delivery once more, at once, with all its retries before it.

    Raises NotFoundError or WebhookDisabledError.
    """
    webhook = _enabled(session, owner, webhook_id)
    row = session.scalars(
        update(DeliveryRow)
        .where(DeliveryRow.id == delivery_id, DeliveryRow.webhook_id == webhook.id)
        .values(status="pending", next_attempt_at=now(), num_failures=0)
        .returning(DeliveryRow)
    ).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def _locked(session: Session, owner: str, webhook_id: str) -> WebhookRow:
    row = session.scalars(queries.owned_for_change(owner, webhook_id)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def _enabled(session: Session, owner: str, webhook_id: str) -> WebhookRow:
    row = _locked(session, owner, webhook_id)
    if row.disabled_at is not None:
        raise WebhookDisabledError(
            f"Nothing is sent to this webhook: {row.disabled_reason}. Enable it first: PATCH it with "
            '{"enabled": true}.'
        )
    return row
