"""The sender's side of a delivery: claim, record, forget. Each is one short transaction; none is open while sending.

Whoever claims has a lease. A process that is killed while it sends leaves it behind, and another sends again: a
receiver gets everything at least once, and tells twins by their `webhook-id`.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.kit.clock import now
from app.kit.database import Database
from app.webhooks import queries, service
from app.webhooks.models import AttemptRow, DeliveryRow
from app.webhooks.sending import Answer
from stillhouse.contract.webhooks import TEST_EVENT

MINUTE, HOUR, DAY = 60.0, 3600.0, 24 * 3600.0
# Waits after each failure, by Standard Webhooks: ten attempts in 76 hours.
BACK_OFF = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
# Longer by up to this share, or what failed together would come back together.
JITTER = 0.1
LEASE_SECONDS = 60.0
GIVE_UP_SECONDS = 5 * DAY
_FORGET_LIMIT = 500


@dataclass(frozen=True)
class Claimed:
    """One attempt at one delivery."""

    delivery_id: str
    webhook_id: str
    message_id: str
    type: str
    body: str
    url: str
    secrets: tuple[str, ...]
    attempt: int


def claim(db: Database, *, busy: Collection[str] = (), lease_seconds: float = LEASE_SECONDS) -> Claimed | None:
    """Take the delivery that has been due for longest, or None when none is. Webhooks in `busy` are passed over."""
    while True:
        with db.reading() as session:
            if session.scalars(queries.due(busy)).one_or_none() is None:
                return None
        with db.writing() as session:
            row = session.scalars(queries.due_for_change(busy)).one_or_none()
            if row is None:
                return None
            webhook, old_secret = session.execute(queries.receiver(row.webhook_id)).one()
            if webhook.disabled_at is not None:  # while this was written down
                row.status = "failed"
                continue
            return _begin(session, row, webhook.url, tuple(filter(None, (webhook.secret, old_secret))), lease_seconds)


def _begin(
    session: Session, row: DeliveryRow, url: str, secrets: tuple[str, ...], lease_seconds: float
) -> Claimed:
    attempt = row.num_attempts + 1
    session.execute(
        update(DeliveryRow).where(DeliveryRow.id == row.id)
        .values(num_attempts=attempt, lease_until=now(lease_seconds))
    )
    # Nobody else is sending it: whoever left no outcome was lost.
    session.execute(
        update(AttemptRow).where(AttemptRow.delivery_id == row.id, AttemptRow.outcome.is_(None))
        .values(outcome="lost")
    )
    session.execute(insert(AttemptRow).values(delivery_id=row.id, number=attempt))
    return Claimed(
        delivery_id=row.id, webhook_id=row.webhook_id, message_id=row.message_id, type=row.type, body=row.body,
        url=url, secrets=secrets, attempt=attempt,
    )


def record(db: Database, claimed: Claimed, answer: Answer, seconds: float) -> bool:
    """Write down how an attempt went, and what follows from it.

    Returns whether it counted: it does not where the lease ran out and another sends again, or the webhook is gone.
    """
    is_delivered = answer.outcome == "delivered"
    is_test = claimed.type == TEST_EVENT
    with db.writing() as session:
        if session.scalars(queries.for_change(claimed.webhook_id)).one_or_none() is None:
            return False
        row = session.scalars(
            update(DeliveryRow).where(queries.sent_by(claimed.delivery_id, claimed.attempt))
            .values(lease_until=None).returning(DeliveryRow)
        ).one_or_none()
        if row is None:
            return False
        _note(session, claimed, answer, seconds)
        if is_delivered:
            row.status = "delivered"
            session.execute(queries.note_success(claimed.webhook_id))
            return True
        if not is_test:
            session.execute(queries.note_failure(claimed.webhook_id))
        _retry_or_fail(session, row, answer, is_final=is_test or answer.is_gone)
        _disable_where_hopeless(session, claimed.webhook_id, answer)
        return True


def _note(session: Session, claimed: Claimed, answer: Answer, seconds: float) -> None:
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.delivery_id == claimed.delivery_id, AttemptRow.number == claimed.attempt)
        .values(
            outcome=answer.outcome, status=answer.status, detail=answer.detail, answer=answer.body, seconds=seconds
        )
    )


def _retry_or_fail(session: Session, row: DeliveryRow, answer: Answer, *, is_final: bool) -> None:
    failures = row.num_failures + 1
    columns: dict[str, object] = {"num_failures": failures, "status": "failed"}
    if failures <= len(BACK_OFF) and not is_final:
        wait = max(BACK_OFF[failures - 1], min(answer.retry_after or 0, DAY))
        wait *= 1 + JITTER * random.random()  # noqa: S311 - to spread load, not to hide anything
        columns |= {"status": "pending", "next_attempt_at": now(wait)}
    session.execute(update(DeliveryRow).where(DeliveryRow.id == row.id).values(columns))


def _disable_where_hopeless(session: Session, webhook_id: str, answer: Answer) -> None:
    if answer.is_gone:
        service.disable(session, webhook_id, "its receiver answered 410: it wants nothing more")
    elif session.scalars(queries.failing_for(webhook_id, GIVE_UP_SECONDS)).one_or_none() is not None:
        service.disable(session, webhook_id, f"its receiver took nothing for {GIVE_UP_SECONDS / DAY:.0f} days")


def forget(db: Database, *, older_than_days: float) -> int:
    """Delete old deliveries, and secrets that no longer sign. Returns how many deliveries went."""
    num_forgotten = 0
    while True:
        with db.writing() as session:
            session.execute(queries.forget_old_secrets())
            gone = session.scalars(queries.forget_deliveries(DAY * older_than_days, _FORGET_LIMIT)).all()
        num_forgotten += len(gone)
        if len(gone) < _FORGET_LIMIT:
            return num_forgotten
