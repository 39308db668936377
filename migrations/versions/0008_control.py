"""Control over jobs: retries, what to keep of a cancelled one, why an attempt ended."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Text()))
    # The check belongs to the column: SQLite adds it without writing the table anew, and drops it with the column.
    is_known = sa.CheckConstraint("keep IN ('best')", name=op.f("ck_jobs_keep"))
    op.add_column("jobs", sa.Column("keep", sa.String(8), is_known))
    op.add_column("job_attempts", sa.Column("reason", sa.Text()))


def downgrade() -> None:
    op.drop_column("job_attempts", "reason")
    op.drop_column("jobs", "keep")
    op.drop_column("jobs", "retry_of")
