"""Whether the database is in reach, of this release, writable, and of one time with this machine."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import URL, insert, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from app.kit import migrate
from app.kit.clock import now
from app.kit.database import Database
from app.kit.ids import new_id
from app.storage.models import BlobChunkRow
from stillhouse.contract.failures import StorageFullError
from stillhouse.contract.findings import Finding, failed, ok, warning
from stillhouse.wording import milliseconds

_CONNECT_SECONDS: Final = 5
_SLOW_MS: Final = 100.0
_MOST_SKEW: Final = 5.0
_MIGRATE = "Run once, with these settings: python -m app migrate"
# What libpq says, whatever the server's language; the words of the server itself come in English mostly.
_REASONS: Final = (
    ("password authentication failed", "it refuses the user or the password",
     "Correct user and password in STILLHOUSE_DATABASE_URL."),
    ("no password supplied", "it asks for a password, and none was given",
     "Put the password into STILLHOUSE_DATABASE_URL, or into ~/.pgpass."),
    ("does not exist", "it has no such database or user",
     "Create the database and its user (CREATE DATABASE ... OWNER ...), or correct STILLHOUSE_DATABASE_URL."),
    ("could not translate host name", "its name cannot be resolved", "Correct the host in STILLHOUSE_DATABASE_URL."),
    ("failed to resolve host", "its name cannot be resolved", "Correct the host in STILLHOUSE_DATABASE_URL."),
    ("too many clients", "it takes no more connections",
     "Raise max_connections of PostgreSQL: each API and worker process holds up to 40."),
    ("refused", "nothing listens there", "Start PostgreSQL, or correct host and port in STILLHOUSE_DATABASE_URL."),
    ("No such file or directory", "nothing listens there",
     "Start PostgreSQL, or correct host and port in STILLHOUSE_DATABASE_URL."),
    ("timeout", "it does not answer", "Look at the network and its firewalls between here and there."),
)


def look(database_url: str) -> Iterator[Finding]:
    """What was found; the last finding is a failed one where nothing more could be asked."""
    file = sqlite_file(database_url)
    if file is not None and not file.exists():  # to open it would make it
        yield failed("database", f"There is no file {file} yet.", _MIGRATE)
        return
    try:
        url = make_url(database_url)
        db = Database(_patient(url).render_as_string(hide_password=False))
    except (ArgumentError, ImportError):
        yield failed(
            "database", "STILLHOUSE_DATABASE_URL does not name a database that can be used here.",
            "Write sqlite:///FILE, or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",  # pragma: allowlist secret
        )
        return
    try:
        yield _reached(db)
        yield (schema := _schema(db))
        if schema.state != "failed":
            yield _writing(db)
            yield _clock(db)
    except (SQLAlchemyError, OSError) as error:
        yield _out_of_reach(url, error)
    finally:
        db.dispose()


def sqlite_file(database_url: str) -> Path | None:
    """Where SQLite keeps it; None of any other database, and of what is no URL."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _patient(url: URL) -> URL:
    """The same database, which is not waited for longer than a few seconds."""
    if url.get_backend_name() == "sqlite" or "connect_timeout" in url.query:
        return url
    return url.update_query_dict({"connect_timeout": str(_CONNECT_SECONDS)})


def _reached(db: Database) -> Finding:
    dialect = db.engine.dialect.name
    version = text("SHOW server_version" if dialect == "postgresql" else "SELECT sqlite_version()")
    with db.reading() as session:
        told = str(session.scalar(version)).partition(" ")[0]
        began = time.perf_counter()
        session.execute(text("SELECT 1"))
        took = 1000 * (time.perf_counter() - began)
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(dialect, dialect)
    message = f"{name} {told} answers in {milliseconds(took)}."
    if took > _SLOW_MS:
        return warning("database", message, "Bring API and workers nearer to it: each request takes several answers.")
    return ok("database", message)


def _schema(db: Database) -> Finding:
    check = "database, schema"
    if migrate.is_current(db):
        return ok(check, "The tables are those of this release.")
    there = migrate.revisions(db)
    if not there:
        return failed(check, "The database has no tables yet.", _MIGRATE)
    if not all(map(migrate.knows, there)):
        return failed(
            check, f"The tables are those of a release that this one does not know (revision {', '.join(there)}).",
            "Run the release that migrated it, or a newer one.",
        )
    return failed(check, f"The tables are those of an earlier release (revision {', '.join(there)}).", _MIGRATE)


def _writing(db: Database) -> Finding:
    """Write a row, and roll it back."""
    check = "database, writing"
    try:
        with db.writing() as session:
            session.execute(insert(BlobChunkRow).values(blob_id=new_id("blob"), number=0, content=b"x"))
            session.rollback()
    except StorageFullError:
        return failed(check, "The database has no room left.", "Make room on its disk.")
    except DBAPIError as error:
        return _unwritable(db.engine.url, error)
    if db.engine.dialect.name == "sqlite":
        return _write_ahead(db)
    return ok(check, "A row could be written (and was rolled back).")


def _unwritable(url: URL, error: DBAPIError) -> Finding:
    told = str(error.orig).strip().partition("\n")[0]
    if url.get_backend_name() == "sqlite":
        advice = f"Let the user that runs this write to {url.database} and to its folder, and see who locks it."
    else:
        advice = "Grant its user INSERT, UPDATE and DELETE on all tables, and name the primary, not a standby."
    return failed("database, writing", f"Nothing can be written: {told}.", advice)


def _write_ahead(db: Database) -> Finding:
    with db.reading() as session:
        mode = session.scalar(text("PRAGMA journal_mode"))
    if mode != "wal":
        return warning(
            "database, writing", f"Rows can be written, but without a write-ahead log (journal_mode {mode}): readers "
            "and writers wait for each other.", "Move the file to a local disk: network folders cannot do this.",
        )
    return ok("database, writing", "A row could be written (and was rolled back); the write-ahead log works.")


def _clock(db: Database) -> Finding:
    """How far this machine's clock is from the database's."""
    check = "clock"
    if db.engine.dialect.name == "sqlite":
        return ok(check, "The database is on this machine, and so is its clock.")
    with db.reading() as session:
        before = datetime.now(UTC)
        theirs = session.scalars(select(now())).one()
        after = datetime.now(UTC)
    skew = (theirs - (before + (after - before) / 2)).total_seconds()
    message = f"This machine's clock and the database's are {abs(skew):.1f} s apart."
    if abs(skew) > _MOST_SKEW:
        return warning(
            check, message, "Set both by NTP: leases hold all the same, but times of keys and logs, and what S3 signs, "
            "do not agree.",
        )
    return ok(check, message)


def _out_of_reach(url: URL, error: SQLAlchemyError | OSError) -> Finding:
    told = str(getattr(error, "orig", None) or error).strip()
    place = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        return failed(
            "database", f"{url.database} cannot be opened: {told}.",
            f"Let the user that runs this read and write {url.database} and its folder.",
        )
    for word, meaning, advice in _REASONS:
        if word in told:
            return failed("database", f"PostgreSQL at {place} cannot be used: {meaning}.", advice)
    return failed("database", f"PostgreSQL at {place} cannot be used: {told}", "Look into PostgreSQL's own log.")
