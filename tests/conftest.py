"""Databases for the tests: built by the migrations, clean for every test, SQLite and PostgreSQL."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.kit.database import Base, Database
from app.kit.migrate import upgrade
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.database import DatabaseStore
from app.storage.stores import Stores, open_files
from tests.fixtures.jobs import Desk
from tests.fixtures.postgres import Postgres, running_postgres
from tests.fixtures.s3 import S3, running_s3

_DATABASE = "stillhouse_test"
_TESTS = Path(__file__).parent
# They touch no back end, or only embedded ones: once is enough.
_FIRST_PASS_ONLY = (
    "unit", "architecture", "fuzz", "gpu", "faults", "integration/export", "integration/engine", "integration/cli",
    "integration/client", "integration/local",
)
_EMBEDDED_FIXTURES = {"sqlite_template", "sqlite_url", "sqlite_database"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends", choices=["embedded", "production"], default="embedded",
        help="embedded: SQLite, a folder. production: PostgreSQL, S3.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames:
        kinds = ["postgresql"] if is_production(metafunc.config) else ["sqlite"]
        metafunc.parametrize("database_url", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_production(config):
        left_out = [item for item in items if _is_embedded(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_embedded(item)]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # What was asked for by name may well be in the first pass only.
    if is_production(session.config) and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


def is_production(config: pytest.Config) -> bool:
    """Whether this pass is the one on PostgreSQL and S3."""
    return bool(config.getoption("--backends") == "production")


def _is_embedded(item: pytest.Item) -> bool:
    place = item.path.relative_to(_TESTS).as_posix()
    return (
        place.startswith(_FIRST_PASS_ONLY) or item.get_closest_marker("embedded") is not None
        or not _EMBEDDED_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; the tests that need it are skipped where it cannot be had."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server; the tests that need it are skipped where it cannot be had."""
    with running_s3() as server:
        yield server


@pytest.fixture
def s3_store(s3: S3) -> Iterator[BlobStore]:
    """A place in the bucket where nothing is yet."""
    store = open_files(s3.settings(secrets.token_hex(8)))
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres_with_schema(postgres: Postgres) -> Iterator[str]:
    """URL of a PostgreSQL database with the schema; `postgres_url` empties it for a test."""
    postgres.drop(_DATABASE)
    url = postgres.create(_DATABASE)
    upgrade(url)
    yield url
    postgres.drop(_DATABASE)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema and no rows."""
    path = tmp_path_factory.mktemp("template") / "stillhouse.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a clean SQLite database."""
    path = tmp_path / "stillhouse.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_with_schema: str) -> str:
    """URL of a clean PostgreSQL database."""
    opened = Database(postgres_with_schema)
    with opened.writing() as session:
        # Whoever a test before left connected would hold locks.
        session.execute(text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ))
        # Twenty times faster than TRUNCATE, and than a new database.
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    opened.dispose()
    return postgres_with_schema


@pytest.fixture
def any_url(request: pytest.FixtureRequest) -> str:
    """URL of a clean database of this pass's kind, where the kind does not matter."""
    url: str = request.getfixturevalue("postgres_url" if is_production(request.config) else "sqlite_url")
    return url


@pytest.fixture
def blob_settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of an empty store for big files, of this pass's kind."""
    if not is_production(request.config):
        return {"blob_url": f"file:{tmp_path / 'blobs'}"}
    server: S3 = request.getfixturevalue("s3")
    given = server.settings(secrets.token_hex(8))
    return {name: getattr(given, name) for name in ("blob_url", "s3_access_key", "s3_secret_key")}


@pytest.fixture
def files(blob_settings: dict[str, Any]) -> Iterator[BlobStore]:
    """The store for big files, empty, of this pass's kind."""
    opened = open_files(Settings(**blob_settings, min_free_bytes=0))
    yield opened
    opened.close()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a clean database, of this pass's kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A clean database, of this pass's kind."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A clean SQLite database, where the kind does not matter."""
    opened = Database(sqlite_url)
    yield opened
    opened.dispose()


@pytest.fixture
def stores(database: Database, files: BlobStore) -> Stores:
    """Both stores, empty."""
    return Stores(files=files, database=DatabaseStore(database))


@pytest.fixture
def desk(database: Database, stores: Stores) -> Desk:
    """Jobs in a clean database, of this pass's kind."""
    return Desk(database, stores)


@pytest.fixture
def postgres_desk(postgres_url: str, files: BlobStore) -> Iterator[Desk]:
    """Jobs in a clean PostgreSQL database, for what only happens where writers do not queue up."""
    opened = Database(postgres_url)
    yield Desk(opened, Stores(files=files, database=DatabaseStore(opened)))
    opened.dispose()
