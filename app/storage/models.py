"""Bytes kept in the database."""

from sqlalchemy.orm import Mapped, mapped_column

from app.kit.database import Base


class BlobChunkRow(Base):
    """One MiB of a blob; the last one may be shorter."""

    __tablename__ = "blob_chunks"

    # No foreign key: chunks are written before the blob is known, and deleted after it is forgotten.
    blob_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[bytes]
