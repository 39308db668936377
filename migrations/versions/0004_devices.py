"""How many devices of one worker a job takes at once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The check belongs to the column: SQLite adds it without writing the table anew, and drops it with the column.
    is_positive = sa.CheckConstraint("num_devices > 0", name=op.f("ck_jobs_num_devices"))
    op.add_column("jobs", sa.Column("num_devices", sa.Integer(), is_positive, nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("jobs", "num_devices")
