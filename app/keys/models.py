"""API keys. The secret itself is not here."""

from datetime import datetime

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
    is_admin: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
