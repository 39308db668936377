"""Bring a database to the schema of this code, or away from it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.kit.database import Database

_MIGRATIONS = Path(__file__).parents[2] / "migrations"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply the migrations that are missing. Safe to run twice at once."""
    command.upgrade(_config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Undo migrations down to a revision; `base` leaves nothing."""
    command.downgrade(_config(database_url), revision)


def check(database_url: str) -> None:
    """Compare the models with an upgraded database. Raises alembic.util.CommandError where they differ."""
    command.check(_config(database_url))


def is_current(db: Database) -> bool:
    """Whether the database has the schema of this code."""
    return set(revisions(db)) == set(ScriptDirectory(str(_MIGRATIONS)).get_heads())


def revisions(db: Database) -> tuple[str, ...]:
    """What the database was brought to; nothing where it never was."""
    with db.reading() as session:
        return MigrationContext.configure(session.connection()).get_current_heads()


def knows(revision: str) -> bool:
    """Whether this code has the revision; else it is one of another release."""
    return any(script.revision == revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions())


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    # Percent signs are interpolated by the parser of ini files.
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
