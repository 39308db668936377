"""Plans: rows that live as jobs do, up to the end of preflight."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The check belongs to the column: SQLite adds it without writing the table anew, and drops it with the column.
    is_known = sa.CheckConstraint("kind IN ('job', 'plan')", name=op.f("ck_jobs_kind"))
    op.add_column("jobs", sa.Column("kind", sa.String(8), is_known, nullable=False, server_default="job"))
    op.add_column("jobs", sa.Column("plan", sa.JSON(none_as_null=True)))
    op.create_index("ix_jobs_kind_created_at", "jobs", ["kind", "created_at"])


def downgrade() -> None:
    # To the release before, they would be jobs.
    plans = "SELECT id FROM jobs WHERE kind = 'plan'"
    for table in ("job_inputs", "job_files", "job_metrics", "job_events", "job_attempts"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN ({plans})")  # noqa: S608 - the names stand here
    op.execute(f"UPDATE artifacts SET job_id = NULL WHERE job_id IN ({plans})")  # noqa: S608 - the same
    op.execute("DELETE FROM jobs WHERE kind = 'plan'")
    op.drop_index("ix_jobs_kind_created_at", "jobs")
    op.drop_column("jobs", "plan")
    op.drop_column("jobs", "kind")
