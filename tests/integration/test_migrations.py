"""The migrations build what the models say, and can be undone."""

import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.util import CommandError
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from app.kit import migrate
from app.kit.database import Database
from tests.fixtures.postgres import Postgres
from tests.fixtures.waiting import wait_until, waits_for_lock


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder that is not there yet/empty.db"
    server: Postgres = request.getfixturevalue("postgres")
    server.drop("stillhouse_empty")
    return server.create("stillhouse_empty")


def test_models_and_migrations_agree(database_url: str) -> None:
    migrate.check(database_url)


def test_a_difference_between_models_and_migrations_is_seen(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    with database.writing() as session:
        session.execute(text("DROP TABLE job_files"))
    database.dispose()
    with pytest.raises(CommandError):
        migrate.check(empty_url)


# As the first release wrote it.
A_JOB = text(
    "INSERT INTO jobs (id, owner, labels, spec, spec_version, queue, priority, status, attempt, losses, "
    "last_seq, created_at, percent, latest_metrics) VALUES ('job_1', 'ann', '{}', '{}', 1, 'cpu', 0, "
    "'queued', 0, 0, 1, '2030-01-01 00:00:00.000000', 0, '{}')"
)


def test_upgrade_downgrade_upgrade(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    database = Database(empty_url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert not migrate.is_current(database)
    migrate.upgrade(empty_url)
    migrate.check(empty_url)
    assert migrate.is_current(database)
    database.dispose()


def test_jobs_of_the_release_before_stay_jobs_and_plans_never_become_any(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0001")
    database = Database(empty_url)
    with database.writing() as session:
        session.execute(A_JOB)
        session.execute(text(
            "INSERT INTO job_events (job_id, seq, attempt, at, type, body) "
            "VALUES ('job_1', 1, 0, '2030-01-01 00:00:00.000000', 'status', '{}')"
        ))
    migrate.upgrade(empty_url)
    with database.writing() as session:
        assert session.execute(text("SELECT id, kind, plan FROM jobs")).all() == [("job_1", "job", None)]
        session.execute(text("UPDATE jobs SET kind = 'plan'"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text("UPDATE jobs SET kind = 'other'"))
    migrate.downgrade(empty_url, "0001")
    with database.reading() as session:
        for table in ("jobs", "job_events"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0  # noqa: S608 - named here
    database.dispose()


def test_jobs_of_the_release_before_take_one_device(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0003")
    database = Database(empty_url)
    with database.writing() as session:
        session.execute(A_JOB)
    migrate.upgrade(empty_url)
    with database.writing() as session:
        assert session.execute(text("SELECT num_devices FROM jobs")).scalar() == 1
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text("UPDATE jobs SET num_devices = 0"))
    migrate.downgrade(empty_url, "0003")
    with database.reading() as session:
        assert session.execute(text("SELECT id FROM jobs")).scalar() == "job_1"
    database.dispose()


def test_keys_of_the_release_before_can_do_what_they_could_but_make_keys(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0004")
    database = Database(empty_url)
    with database.writing() as session:
        for name, is_admin in (("chief", True), ("user", False)):
            session.execute(text(
                "INSERT INTO api_keys (id, owner, name, prefix, secret_sha256, is_admin, created_at) "
                "VALUES (:name, 'ann', :name, 'sk_', :name, :is_admin, '2030-01-01 00:00:00.000000')"
            ), {"name": name, "is_admin": is_admin})
    migrate.upgrade(empty_url)
    scopes = text("SELECT id, scopes FROM api_keys ORDER BY id")
    with database.writing() as session:
        assert session.execute(scopes).all() == [("chief", "read submit admin"), ("user", "read submit")]
        session.execute(text(
            "INSERT INTO api_keys (id, owner, name, prefix, secret_sha256, scopes, created_at) "
            "VALUES ('reader', 'ann', '', 'sk_', 'reader', 'read', '2030-01-01 00:00:00.000000')"
        ))
    migrate.downgrade(empty_url, "0004")
    with database.reading() as session:
        rows = session.execute(text("SELECT id, is_admin, revoked_at IS NULL FROM api_keys ORDER BY id")).all()
        assert rows == [("chief", True, True), ("reader", False, False), ("user", False, True)]
    database.dispose()


def test_jobs_of_the_release_before_are_no_retries_and_keep_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0004")
    database = Database(empty_url)
    with database.writing() as session:
        session.execute(A_JOB)
        session.execute(text(
            "INSERT INTO job_attempts (job_id, attempt, worker, started_at, log, log_truncated) "
            "VALUES ('job_1', 1, 'w', '2030-01-01 00:00:00.000000', '', false)"
        ))
    migrate.upgrade(empty_url)
    with database.writing() as session:
        assert session.execute(text("SELECT retry_of, keep FROM jobs")).one() == (None, None)
        assert session.execute(text("SELECT reason FROM job_attempts")).scalar() is None
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text("UPDATE jobs SET keep = 'worst'"))
    migrate.downgrade(empty_url, "0004")
    with database.reading() as session:
        assert session.execute(text("SELECT id FROM jobs")).scalar() == "job_1"
    database.dispose()


def test_many_may_upgrade_one_sqlite_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    # Processes: Alembic keeps its context in globals.
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(migrate.upgrade, [url] * 3))
    migrate.check(url)


def test_an_upgrade_waits_for_the_one_before(postgres: Postgres) -> None:
    postgres.drop("stillhouse_locked")
    url = postgres.create("stillhouse_locked")
    database = Database(url)
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(7316920441)"))
            upgrading = pool.submit(migrate.upgrade, url)
            wait_until(lambda: waits_for_lock(database))
            assert inspect(database.engine).get_table_names() == []
        upgrading.result(timeout=60)
    migrate.check(url)
    database.dispose()


def test_sqlite_keeps_a_log_beside_the_file(sqlite_template: Path) -> None:
    connection = sqlite3.connect(sqlite_template)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
