"""Connections to PostgreSQL that end, or whose client has vanished."""

from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select, text, update

from app.idempotency.models import IdempotencyKeyRow
from app.kit import connections
from app.kit.database import Database

ROW = {"owner": "ann", "key": "k", "request": "POST /jobs", "body_sha256": "0"}


def connected(postgres_url: str) -> Iterator[Database]:
    """A clean database, as one process is connected to it."""
    opened = Database(postgres_url)
    yield opened
    opened.dispose()


ours, other = pytest.fixture(connected), pytest.fixture(connected)


def end_connections(of: Database, by: Database) -> None:
    with of.reading() as session:
        pid = session.scalars(text("SELECT pg_backend_pid()")).one()
    with by.reading() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_a_connection_that_the_server_ended_is_not_used_again(ours: Database, other: Database) -> None:
    for _ in range(3):
        end_connections(ours, other)
        with ours.writing() as session:
            assert session.scalars(select(IdempotencyKeyRow)).all() == []


def test_a_connection_that_was_idle_for_long_is_asked_first(
    ours: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(connections, "_has_unread", lambda _: False)  # as where the network lost the good-bye
    end_connections(ours, other)
    with ours.reading() as session:
        assert session.scalars(select(IdempotencyKeyRow)).all() == []


def test_whoever_vanishes_in_a_transaction_lets_go_of_what_it_locked(
    postgres_url: str, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other.writing() as session:
        session.execute(insert(IdempotencyKeyRow).values(ROW))
    monkeypatch.setattr(connections, "IDLE_IN_TRANSACTION_SECONDS", 1)
    vanishing = Database(postgres_url)
    held = vanishing.engine.connect()
    held.execute(update(IdempotencyKeyRow).values(request="never"))
    with other.writing() as session:
        session.execute(text("SET LOCAL lock_timeout = '30s'"))
        session.execute(update(IdempotencyKeyRow).values(request="done"))
    with other.reading() as session:
        assert session.scalars(select(IdempotencyKeyRow.request)).all() == ["done"]
    held.invalidate()
    held.close()
    vanishing.dispose()
