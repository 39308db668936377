"""Requests that were sent with an Idempotency-Key, and what they were answered."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base, VerbatimJson


class IdempotencyKeyRow(Base):
    """One request. In flight while it has no status code."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    body_sha256: Mapped[str]
    status_code: Mapped[int | None]
    response: Mapped[dict[str, Any] | None] = mapped_column(VerbatimJson)
    created_at: Mapped[datetime] = mapped_column(default=now(), index=True)
