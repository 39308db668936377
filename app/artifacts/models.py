"""Artifacts are what an owner sees; blobs are the bytes, stored once per owner and store."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.kit.clock import now
from app.kit.database import Base


class BlobRow(Base):
    """Bytes of an owner. The id is the key in the store: equal bytes that come again never share it with old ones."""

    __tablename__ = "blobs"
    __table_args__ = (UniqueConstraint("owner", "sha256", "store"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    store: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now())


class LooseBlobRow(Base):
    """Bytes in a store that no artifact holds: still being written, or on their way out."""

    __tablename__ = "loose_blobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    store: Mapped[str]
    # A writer that has not finished by then has died. Null: to be deleted.
    kept_until: Mapped[datetime | None] = mapped_column(index=True)


class ArtifactRow(Base):
    """A named file of an owner."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_owner_created_at_id", "owner", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    blob_id: Mapped[str] = mapped_column(ForeignKey("blobs.id"), index=True)
    facts: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now())
    # Last download, to the hour. Jobs that read it tell for themselves when they did.
    last_used_at: Mapped[datetime | None]

    blob: Mapped[BlobRow] = relationship(lazy="joined", innerjoin=True)

    @property
    def sha256(self) -> str:
        """Digest of the content."""
        return self.blob.sha256
