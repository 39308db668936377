"""When which chore is due next, for all workers together."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.kit.clock import now
from app.kit.database import Base


class ChoreRow(Base):
    """A chore that one worker at a time does."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime] = mapped_column(default=now())
