"""How migrations run: one at a time, all or nothing, on SQLite and PostgreSQL."""

from typing import Literal

from alembic import context
from sqlalchemy import Connection, TypeDecorator, text

import app.artifacts.models
import app.idempotency.models
import app.jobs.models
import app.keys.models
import app.retention.models
import app.soft_labels.models
import app.storage.models
import app.uploads.models
import app.webhooks.models  # noqa: F401 - the tables become known by importing them
from app.kit.database import Base, Database
from app.settings import settings

# Any number; whoever migrates this database takes this lock.
_LOCK = 7_316_920_441


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our types as what they are in the database: a revision must not change when the code does."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_server_default=True,
        render_item=_render,
        # Alembic believes that SQLite cannot roll DDL back; with our own BEGIN it can.
        transactional_ddl=True,
    )
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.run_migrations()


def _run() -> None:
    database = Database(context.config.get_main_option("sqlalchemy.url") or settings().database_url)
    try:
        with database.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                # Batch mode drops and renames tables; that must not touch the rows that point to them. Only outside
                # of a transaction.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            _migrate(connection)
    finally:
        database.dispose()


_run()
