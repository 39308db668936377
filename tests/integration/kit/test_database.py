"""Short transactions and the database's clock."""

import sqlite3
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from app.idempotency.models import IdempotencyKeyRow
from app.kit.clock import now
from app.kit.database import Database


def put(database: Database, key: str, created_at: datetime | None = None) -> None:
    values = {"owner": "ann", "key": key, "request": "POST /jobs", "body_sha256": "0"}
    with database.writing() as session:
        session.execute(insert(IdempotencyKeyRow).values(
            **values, created_at=now() if created_at is None else created_at
        ))


def test_reading_cannot_write(sqlite_database: Database) -> None:
    with pytest.raises(DBAPIError, match="readonly"), sqlite_database.reading() as session:
        session.execute(text("DELETE FROM jobs"))
    put(sqlite_database, "writing goes on")


def test_an_error_undoes_a_transaction(database: Database) -> None:
    def write_and_fail() -> None:
        with database.writing() as session:
            session.execute(insert(IdempotencyKeyRow).values(owner="a", key="k", request="r", body_sha256="0"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.reading() as session:
        assert session.scalars(select(IdempotencyKeyRow)).all() == []


def test_a_reader_sees_one_moment(sqlite_database: Database) -> None:
    with sqlite_database.reading() as session:
        count = text("SELECT count(*) FROM idempotency_keys")
        assert session.scalar(count) == 0
        put(sqlite_database, "meanwhile")
        assert session.scalar(count) == 0


def test_the_clock_is_the_databases_and_moves(database: Database) -> None:
    with database.reading() as session:
        first, later, second = (session.scalars(select(now(offset))).one() for offset in (0, 90.5, 0))
    assert first.utcoffset() == timedelta(0)
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=30)
    assert timedelta(seconds=90.4) < later - first < timedelta(seconds=100)
    assert second >= first


def test_times_are_compared_as_times(database: Database) -> None:
    put(database, "k")
    for offset, is_later in ((-60.0, False), (60.0, True)):
        with database.reading() as session:
            found = session.scalars(
                select(IdempotencyKeyRow.key).where(IdempotencyKeyRow.created_at < now(offset))
            ).all()
        assert bool(found) is is_later
    with database.reading() as session:
        assert session.scalars(select(now(-0.05) < now())).one(), "parts of a second count"


def test_a_time_comes_back_in_utc(database: Database) -> None:
    noon = datetime(2030, 6, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    put(database, "k", noon)
    with database.reading() as session:
        found = session.scalars(select(IdempotencyKeyRow.created_at)).one()
        same = session.scalars(select(IdempotencyKeyRow.key).where(IdempotencyKeyRow.created_at == noon)).all()
    assert found == noon
    assert found.utcoffset() == timedelta(0)
    assert same == ["k"]


def test_times_of_both_origins_sort_together_on_sqlite(sqlite_database: Database) -> None:
    put(sqlite_database, "python", datetime(2030, 6, 1, tzinfo=UTC))
    put(sqlite_database, "sql")
    with sqlite_database.reading() as session:
        stored = session.execute(text("SELECT created_at FROM idempotency_keys")).all()
    assert {len(row[0]) for row in stored} == {len("2030-06-01 00:00:00.000000")}


def test_sqlite_enforces_foreign_keys(sqlite_database: Database) -> None:
    with pytest.raises(DBAPIError, match="FOREIGN KEY"), sqlite_database.writing() as session:
        session.execute(text("INSERT INTO job_inputs VALUES ('no job', 'no artifact')"))


def test_a_database_of_sqlite_is_made_with_its_folder(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/a/b/stillhouse.db")
    with database.writing() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    database.dispose()
    sqlite3.connect(f"{tmp_path}/a/b/stillhouse.db").close()
