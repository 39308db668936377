"""One database, SQLite or PostgreSQL: its connections, and short transactions that read or write."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, MetaData, Table, Text, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from app.kit.clock import UtcDateTime
from app.kit.connections import open_engine
from stillhouse.contract.failures import StorageFullError

# SQLITE_IOERR_SHMSIZE: no room for the index of the write-ahead log.
_SQLITE_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}
_POSTGRESQL_FULL = "53100"


def storable(text: str) -> str:
    """The text without what databases refuse: NUL and lone surrogates become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


class PlainText(TypeDecorator[str]):
    """Text of any length that both databases take, whatever a client sent."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's own
        """Replace what cannot be stored."""
        return None if value is None else storable(value)


# Queryable on both. Neither keeps the order of keys on PostgreSQL nor needs to.
JsonType = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# Kept as it was written, order of keys included.
VerbatimJson = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    })
    type_annotation_map = {str: PlainText, datetime: UtcDateTime, dict[str, Any]: JsonType}  # noqa: RUF012 - SQLAlchemy's own


class Database:
    """A database's connections. Safe to share between threads, not between a process and its fork."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(make_url(url))
        self._reader = self.engine.execution_options(writes=False)
        if self.engine.dialect.name == "postgresql":
            # As READ COMMITTED, each statement sees what is committed when it begins; without the two round trips
            # around it.
            self._reader = self._reader.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads. SQLite lets it do nothing else."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed at the end, or rolled back on an error. Keep it short.

        Raises StorageFullError when the database has no room left.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except DBAPIError as error:
            if _tells_full(error):
                raise StorageFullError from error
            raise

    def dispose(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()


def table(row: type[Base]) -> Table:
    """The table behind a class: for statements that need none of its objects, at a fraction of the cost."""
    found = row.__table__
    assert isinstance(found, Table)  # noqa: S101 - no class here is mapped to anything else
    return found


def insert_into(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what to do on a conflict."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _tells_full(error: DBAPIError) -> bool:
    cause = error.orig
    return (
        getattr(cause, "sqlite_errorname", None) in _SQLITE_FULL
        or getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL
    )
