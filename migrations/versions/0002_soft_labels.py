"""Soft labels: which shards there are, and which are being made."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "soft_labels",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("artifact_id", sa.Text()),
        sa.Column("maker_job_id", sa.Text(), nullable=False),
        sa.Column("maker_attempt", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("num_uses", sa.Integer(), nullable=False),
        sa.Column("last_used_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_soft_labels_artifact_id_artifacts"), ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["maker_job_id"], ["jobs.id"], name=op.f("fk_soft_labels_maker_job_id_jobs")),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_soft_labels")),
    )
    op.create_index("ix_soft_labels_artifact_id", "soft_labels", ["artifact_id"], unique=True)
    op.create_index("ix_soft_labels_owner_last_used_at", "soft_labels", ["owner", "last_used_at"])


def downgrade() -> None:
    op.drop_table("soft_labels")
