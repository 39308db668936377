"""Two workers and an API on one SQLite file, as processes: nobody ever sees "database is locked"."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from app.jobs import life
from app.jobs.models import JobRow
from app.kit.database import Database
from app.storage.database import DatabaseStore
from app.storage.files import FileStore
from app.storage.stores import Stores
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk

SECONDS = 6
WORKER = """
import sys, time
from pathlib import Path
from app.artifacts import service as artifacts
from app.jobs import life
from app.kit.database import Database
from app.storage.database import DatabaseStore
from app.storage.files import FileStore
from app.storage.stores import Stores
from stillhouse.contract.events import CheckpointSaved, Measured, Noted
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.status import Phase, Request

url, folder, name, seconds = sys.argv[1:]
deadline = time.monotonic() + float(seconds)
done = 0
while time.monotonic() < deadline:
    # A fresh one each time: opening and closing are the moments when the log is recovered and removed.
    db = Database(url)
    stores = Stores(files=FileStore(Path(folder)), database=DatabaseStore(db))
    claim = life.claim(db, queues=["cpu"], worker=name, lease_seconds=30)
    life.reap(db, 5)
    life.take_rings(db, older_than_seconds=1, limit=3)
    artifacts.sweep(db, stores)
    if claim:
        for step in range(5):
            life.record(db, claim, [Measured(phase=Phase.DISTILLING, step=step, values={"loss": 1.0})])
            life.renew(db, claim, 30)
        with artifacts.Intake(db, stores.database, owner=claim.owner) as intake:
            intake.write(bytes(3 * 1024 * 1024) + claim.job_id.encode())
            state = intake.finish(kind="state", name="s", format="x", job_id=claim.job_id)
        life.save_checkpoint(db, claim, CheckpointSaved(phase=Phase.DISTILLING, step=5, file="c"), state.id)
        if done % 2:
            life.stop(db, claim, Request.DRAIN)
        else:
            life.fail(db, claim, DivergedError().as_failure())
        done += 1
    db.dispose()
print(done)
"""
API = """
import sys, threading, time
from pathlib import Path
from app.jobs import service
from app.kit.database import Database
from app.storage.database import DatabaseStore
from app.storage.files import FileStore
from app.storage.stores import Stores
from stillhouse.contract.failures import IllegalActionError
from tests.fixtures.jobs import Desk

url, folder, name, seconds = sys.argv[1:]
db = Database(url)
desk = Desk(db, Stores(files=FileStore(Path(folder)), database=DatabaseStore(db)))
deadline = time.monotonic() + float(seconds)
counts = []

def serve(number):
    count = 0
    while time.monotonic() < deadline:
        job_id = desk.submit(f"owner {number}")
        with db.reading() as session:
            service.page(session, f"owner {number}", limit=20)
            service.queue_place(session, service.find(session, f"owner {number}", job_id))
            service.events_after(session, job_id)
        if count % 5 == 0:
            try:
                desk.cancel(job_id, f"owner {number}")
            except IllegalActionError:
                pass
        count += 1
    counts.append(count)

threads = [threading.Thread(target=serve, args=[number]) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(counts) == len(threads), "a thread died"
print(sum(counts))
"""


def test_many_processes_share_one_sqlite_file(sqlite_url: str, tmp_path: Path) -> None:
    roles = [("worker-1", WORKER), ("worker-2", WORKER), ("api", API)]
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, sqlite_url, tmp_path / "blobs", name, str(SECONDS)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, script in roles
    ]
    told = [process.communicate(timeout=SECONDS + 90) for process in started]
    assert [errors for _, errors in told] == ["", "", ""]
    assert all(int(count) > 0 for count, _ in told)
    assert [process.returncode for process in started] == [0, 0, 0]
    database = Database(sqlite_url)
    check_whole(Desk(database, Stores(files=FileStore(tmp_path / "blobs"), database=DatabaseStore(database))))
    database.dispose()


def check_whole(desk: Desk) -> None:
    with desk.db.reading() as session:
        assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert session.connection().exec_driver_sql("PRAGMA foreign_key_check").all() == []
        jobs = session.query(JobRow).all()
    assert Counter(job.status for job in jobs)[Status.FAILED] > 0
    for job in jobs:
        assert [line.seq for line in desk.events(job.id)] == list(range(1, job.last_seq + 1))


STORER = """
import sys, time
from app.kit.database import Database
from app.storage.database import DatabaseStore

store = DatabaseStore(Database(sys.argv[1]))
print("ready", flush=True)
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    with store.writer("blob") as writer:
        for _ in range(64):
            writer.write(bytes(1024 * 1024))
        writer.commit()
    store.delete("blob")
"""


def test_a_big_blob_does_not_hold_up_a_heartbeat(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    desk = Desk(database, Stores(files=FileStore(tmp_path / "blobs"), database=DatabaseStore(database)))
    desk.submit()
    claim = desk.claim()
    storer = subprocess.Popen(
        [sys.executable, "-c", STORER, sqlite_url, str(SECONDS)], stdout=subprocess.PIPE, text=True,
    )
    assert storer.stdout is not None
    assert storer.stdout.readline() == "ready\n"
    slowest = 0.0
    while storer.poll() is None:
        began = time.monotonic()
        life.renew(database, claim, 30)
        slowest = max(slowest, time.monotonic() - began)
    storer.stdout.close()
    database.dispose()
    assert storer.returncode == 0
    assert slowest < 5
