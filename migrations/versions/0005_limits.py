"""What a key may do, how long, and how much; secrets that a rotation replaced."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("scopes", sa.Text(), nullable=False, server_default="read submit"))
    op.execute("UPDATE api_keys SET scopes = 'read submit admin' WHERE is_admin")
    op.drop_column("api_keys", "is_admin")
    op.add_column("api_keys", sa.Column("expires_at", TIME))
    op.add_column("api_keys", sa.Column("limits", JSON))
    op.create_table(
        "former_secrets",
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("valid_until", TIME, nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_former_secrets_key_id_api_keys")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_former_secrets")),
    )
    op.create_index(op.f("ix_former_secrets_key_id"), "former_secrets", ["key_id"])
    op.add_column("jobs", sa.Column("max_running", sa.Integer()))


def downgrade() -> None:
    # A key that has expired, or that may only read, would be whole again to the release before.
    op.execute("UPDATE api_keys SET revoked_at = CURRENT_TIMESTAMP WHERE revoked_at IS NULL AND ("
               "expires_at IS NOT NULL OR scopes NOT LIKE 'read submit%')")
    op.drop_column("jobs", "max_running")
    op.drop_index(op.f("ix_former_secrets_key_id"), "former_secrets")
    op.drop_table("former_secrets")
    op.drop_column("api_keys", "limits")
    op.drop_column("api_keys", "expires_at")
    op.add_column("api_keys", sa.Column("is_admin", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE api_keys SET is_admin = (scopes LIKE '%admin')")
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("api_keys", "is_admin", server_default=None)
    op.drop_column("api_keys", "scopes")
