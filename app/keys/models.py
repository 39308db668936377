"""API keys. The secrets themselves are not here."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base


class ApiKeyRow(Base):
    """A key of an owner. Revoked keys stay, so that a log can still name them."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    # Words with spaces between them, in the order in which they are declared.
    scopes: Mapped[str] = mapped_column(server_default="read submit")
    # Limits of this key's own, in place of the service's.
    limits: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class FormerSecretRow(Base):
    """A secret that a rotation replaced. It stays for good: the bootstrap key must not come back by a restart."""

    __tablename__ = "former_secrets"

    secret_sha256: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    valid_until: Mapped[datetime]
