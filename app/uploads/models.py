"""An upload on its way, and the parts that have come. What it becomes is an artifact like any other."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base


class UploadRow(Base):
    """A file of known length that comes in as many requests as it takes."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_owner_created_at_id", "owner", "created_at", "id"),
        Index("ix_uploads_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    format: Mapped[str | None]
    sha256: Mapped[str | None]
    # The header Upload-Metadata as it came; the protocol has it told back.
    metadata_header: Mapped[str]
    length: Mapped[int] = mapped_column(BigInteger)
    # Bytes that have come and are kept: where the next request goes on.
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    # The request that may add bytes now. Whoever writes with another token is refused.
    holder: Mapped[str | None]
    held_until: Mapped[datetime | None]
    # What became of it: one of the two, or neither yet. No foreign key: the artifact may be deleted later.
    artifact_id: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    expires_at: Mapped[datetime]


class UploadPartRow(Base):
    """Bytes of an upload as one blob of their own. Stores cannot append, so an upload is the sequence of its parts."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    # Where the part begins in the upload.
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    # The key in the store. It is no row of `blobs`: parts are never shared.
    blob_id: Mapped[str] = mapped_column(index=True, unique=True)
    store: Mapped[str]
