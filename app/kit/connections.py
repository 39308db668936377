"""How a process is connected to the database: engines of SQLite and PostgreSQL, and what each connection is told."""

import json
import re
import select
import sqlite3
from pathlib import Path
from time import monotonic
from typing import Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

BUSY_SECONDS: Final = 30
# A client that vanished in the middle of a transaction (stopped, or cut off without a word) keeps what it locked no
# longer than this. Our transactions never wait for anything but the database.
IDLE_IN_TRANSACTION_SECONDS: Final = 10
# A connection that was idle for longer is asked whether it still works: a firewall may have forgotten it.
_FRESH_SECONDS: Final = 10.0
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def open_engine(url: URL) -> Engine:
    """The engine of a database. Connects when it is first used."""
    return _open_sqlite(url) if url.get_backend_name() == "sqlite" else _open_postgresql(url)


def _open_postgresql(url: URL) -> Engine:
    engine = create_engine(url, json_serializer=_to_json, pool_size=10, max_overflow=30)
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _refuse_dead)
    return engine


def _prepare_postgresql(connection: "psycopg.Connection[object]", record: ConnectionPoolEntry) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'")
    connection.commit()
    _note_use(connection, record)


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = monotonic()


def _refuse_dead(
    connection: "psycopg.Connection[object]", record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Have the pool open new connections where the server ended this one.

    Not SQLAlchemy's ping at each use, which costs as much as a small query: what a server says unasked is good-bye.
    """
    if _has_unread(connection) or (monotonic() - record.info["used_at"] > _FRESH_SECONDS and not _answers(connection)):
        raise InvalidatePoolError


def _has_unread(connection: "psycopg.Connection[object]") -> bool:
    if connection.closed:
        return True
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _answers(connection: "psycopg.Connection[object]") -> bool:
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error:
        return False
    return True


def _open_sqlite(url: URL) -> Engine:
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
