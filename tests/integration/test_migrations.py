"""The migrations build what the models say, and can be undone."""

import sqlite3
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.util import CommandError
from sqlalchemy import inspect, text

from app.kit import migrate
from app.kit.database import Database
from tests.fixtures.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder that is not there yet/empty.db"
    server: Postgres = request.getfixturevalue("postgres")
    server.drop("stillhouse_empty")
    return server.create("stillhouse_empty")


def test_models_and_migrations_agree(database_url: str) -> None:
    migrate.check(database_url)


def test_a_difference_between_models_and_migrations_is_seen(database: Database, database_url: str) -> None:
    with database.writing() as session:
        session.execute(text("DROP TABLE job_files"))
    with pytest.raises(CommandError):
        migrate.check(database_url)


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


def test_many_may_upgrade_at_once(empty_url: str) -> None:
    # Processes: Alembic keeps its context in globals.
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(migrate.upgrade, [empty_url] * 3))
    migrate.check(empty_url)


def test_a_status_that_the_graph_does_not_know_is_refused(database: Database) -> None:
    with database.engine.connect() as connection:
        checks = inspect(connection).get_check_constraints("jobs")
    assert [check["name"] for check in checks] == ["ck_jobs_status"]
    assert "cancelling" in checks[0]["sqltext"]


def test_sqlite_keeps_a_log_beside_the_file(sqlite_template: Path) -> None:
    connection = sqlite3.connect(sqlite_template)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
