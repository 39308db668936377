"""Which shards of soft labels there are, and which are being made."""

from datetime import datetime

from sqlalchemy import Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base


class SoftLabelsRow(Base):
    """A shard by its key. Without an artifact, a job has taken it on: that holds for as long as its attempt lives."""

    __tablename__ = "soft_labels"
    __table_args__ = (
        Index("ix_soft_labels_owner_last_used_at", "owner", "last_used_at"),
        Index("ix_soft_labels_artifact_id", "artifact_id", unique=True),
    )

    owner: Mapped[str] = mapped_column(primary_key=True)
    # Digest of all that goes into the labels, the owner included.
    key: Mapped[str] = mapped_column(primary_key=True)
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"))
    maker_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    maker_attempt: Mapped[int]
    seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    # By jobs other than the one that made it.
    num_uses: Mapped[int] = mapped_column(default=0)
    last_used_at: Mapped[datetime] = mapped_column(default=now())
