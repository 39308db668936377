"""Receivers, what is to be sent to them, and what was tried."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base, JsonType
from stillhouse.contract.webhooks import DeliveryStatus


class WebhookRow(Base):
    """A receiver. Its secret lies here as it is: whoever signs needs it whole."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner_created_at_id", "owner", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    url: Mapped[str]
    name: Mapped[str | None]
    # Empty means every event.
    events: Mapped[list[Any]] = mapped_column(JsonType)
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now())


class DeliveryRow(Base):
    """An event for one receiver, written in the transaction that made it happen."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_webhook_deliveries_status_next_attempt_at", "status", "next_attempt_at"),
        Index("ix_webhook_deliveries_webhook_id_created_at_id", "webhook_id", "created_at", "id"),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    message_id: Mapped[str]
    type: Mapped[str]
    # The very bytes that are signed and sent.
    body: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(String(16), default="pending")
    next_attempt_at: Mapped[datetime] = mapped_column(default=now())
    # Attempts that failed since it was asked for: the place in the back-off.
    num_failures: Mapped[int] = mapped_column(default=0)
    # All attempts ever begun, and the fencing token: whoever writes for an older one is refused.
    num_attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now())


class AttemptRow(Base):
    """One request to a receiver. Without an outcome while it is sent, and for ever where its process was killed."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(default=now())
    seconds: Mapped[float | None] = mapped_column(Float(53))
    outcome: Mapped[str | None] = mapped_column(String(16))
    status: Mapped[int | None]
    detail: Mapped[str | None]
    answer: Mapped[str | None]
