"""Control over jobs: retries, what to keep of a cancelled one, why an attempt ended, checkpoints as a list."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Text()))
    # The check belongs to the column: SQLite adds it without writing the table anew, and drops it with the column.
    is_known = sa.CheckConstraint("keep IN ('best')", name=op.f("ck_jobs_keep"))
    op.add_column("jobs", sa.Column("keep", sa.String(8), is_known))
    op.add_column("job_attempts", sa.Column("reason", sa.Text()))
    op.create_table(
        "job_checkpoints",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer()),
        sa.Column("score", sa.Float(53)),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_checkpoints")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_checkpoints_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_job_checkpoints_artifact_id_artifacts"),
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_job_checkpoints_artifact_id", "job_checkpoints", ["artifact_id"])
    op.create_index("ix_job_checkpoints_created_at", "job_checkpoints", ["created_at"])


def downgrade() -> None:
    op.drop_table("job_checkpoints")
    op.drop_column("job_attempts", "reason")
    op.drop_column("jobs", "keep")
    op.drop_column("jobs", "retry_of")
