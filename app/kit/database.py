"""One database, SQLite or PostgreSQL: its connections, and short transactions that read or write."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, URL, Connection, Engine, MetaData, Text, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from app.kit.clock import UtcDateTime
from stillhouse.contract.failures import StorageFullError

BUSY_SECONDS = 30
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
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
        self.engine = _open(make_url(url))
        self._reader = self.engine.execution_options(postgresql_readonly=True, writes=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that cannot write."""
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


def insert_into(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what to do on a conflict."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _open(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url, json_serializer=_to_json, pool_size=10, max_overflow=30, pool_pre_ping=True,
        )
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, json_serializer=_to_json, pool_size=10, max_overflow=30, connect_args={"timeout": BUSY_SECONDS},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The module's own transactions begin too late (at the first write): ours begin in `_begin_sqlite`.
    connection.isolation_level = None
    # WAL: readers and the one writer do not wait for each other. NORMAL: after a power cut the last commits may
    # be missing, the file stays whole.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails at once when another has written in between, whatever
    # the timeout: whoever may write takes the lock first.
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _NUL.sub("\\1\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _tells_full(error: DBAPIError) -> bool:
    cause = error.orig
    return (
        getattr(cause, "sqlite_errorname", None) in _SQLITE_FULL
        or getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL
    )
