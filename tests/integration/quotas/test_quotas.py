"""Quotas hold exactly, however many come at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from app.artifacts.service import Intake
from app.jobs import life, service
from app.kit.database import Database
from app.quotas import service as quotas
from app.storage.stores import Stores
from stillhouse.contract.failures import StillhouseError, StorageQuotaExceededError, TooManyQueuedJobsError
from stillhouse.contract.resources import QueuePlace
from stillhouse.contract.status import Request, Status
from tests.fixtures.jobs import LEASE, Desk, upload

MANY = 8


def at_once(act: Callable[[int], object]) -> list[StillhouseError | None]:
    """Do it in many threads that begin together; what each was refused with."""
    begun = Barrier(MANY)

    def tried(number: int) -> StillhouseError | None:
        begun.wait(60)
        try:
            act(number)
        except StillhouseError as error:
            return error
        return None

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(tried, range(MANY)))


def claim(desk: Desk, max_running: int, worker: str = "w") -> life.Claim | None:
    return life.claim(desk.db, queues=["cpu"], worker=worker, lease_seconds=LEASE, max_running=max_running)


def submit_within(desk: Desk, artifact_id: str, most: int | None, owner: str = "ann", queue: str = "cpu") -> None:
    with desk.db.writing() as session:
        quotas.hold_place(session, owner, most, "plan" if queue == "plans" else "job")
        desk.submit_in(session, artifact_id, owner, queue=queue)


@pytest.mark.parametrize(
    ("own", "usual", "expected"), [(None, 0, None), (None, 5, 5), (3, 5, 3), (0, 5, None), (7, 0, 7)]
)
def test_a_keys_own_limit_wins_and_0_is_none(own: int | None, usual: int, expected: int | None) -> None:
    assert quotas.limit(own, usual) == expected


def test_only_as_many_jobs_are_queued_at_once_as_may(desk: Desk) -> None:
    artifact_id = upload(desk.db, desk.stores).id
    refused = [error for error in at_once(lambda _: submit_within(desk, artifact_id, 3)) if error is not None]
    assert len(refused) == MANY - 3
    assert {type(error) for error in refused} == {TooManyQueuedJobsError}
    assert "3 jobs queued, and 3 may" in refused[0].message
    with desk.db.reading() as session:
        assert len(service.page(session, "ann", status=Status.QUEUED).rows) == 3


def test_a_place_is_free_again_when_a_job_begins_or_is_cancelled(desk: Desk) -> None:
    artifact_id = upload(desk.db, desk.stores).id
    for _ in range(2):
        submit_within(desk, artifact_id, 2)
    with pytest.raises(TooManyQueuedJobsError):
        submit_within(desk, artifact_id, 2)
    desk.claim()
    submit_within(desk, artifact_id, 2)
    with desk.db.reading() as session:
        queued = service.page(session, "ann", status=Status.QUEUED).rows[0].id
    desk.cancel(queued)
    submit_within(desk, artifact_id, 2)


def test_plans_and_other_owners_are_counted_apart(desk: Desk) -> None:
    mine, other = upload(desk.db, desk.stores).id, upload(desk.db, desk.stores, owner="bob").id
    submit_within(desk, mine, 1)
    submit_within(desk, mine, 1, queue="plans")
    submit_within(desk, other, 1, owner="bob")
    for artifact_id, owner, queue in ((mine, "ann", "cpu"), (mine, "ann", "plans"), (other, "bob", "cpu")):
        with pytest.raises(TooManyQueuedJobsError):
            submit_within(desk, artifact_id, 1, owner=owner, queue=queue)


def test_only_as_many_jobs_run_at_once_as_may(desk: Desk) -> None:
    jobs = [desk.submit("ann") for _ in range(MANY)]
    claimed: list[life.Claim | None] = []
    at_once(lambda number: claimed.append(claim(desk, 2, f"worker-{number}")))
    assert len(claimed) == MANY
    assert sum(taken is not None for taken in claimed) == 2
    running = [job_id for job_id in jobs if desk.row(job_id).status is Status.RUNNING]
    assert len(running) == 2


def test_an_owner_at_the_limit_is_passed_over(desk: Desk) -> None:
    first, second, other = desk.submit("ann", priority=9), desk.submit("ann", priority=9), desk.submit("bob")
    taken = claim(desk, 1)
    assert taken is not None
    assert taken.job_id == first
    assert life.next_width(desk.db, queues=["cpu"], max_devices=1, max_running=1) == 1
    following = claim(desk, 1)
    assert following is not None
    assert following.job_id == other
    assert claim(desk, 1) is None
    assert life.next_width(desk.db, queues=["cpu"], max_devices=1, max_running=1) is None
    life.stop(desk.db, following, Request.DRAIN)
    desk.cancel(first)
    life.stop(desk.db, taken, Request.CANCEL)
    again = claim(desk, 1)
    assert again is not None
    assert again.job_id == second


def test_a_jobs_own_limit_wins(desk: Desk) -> None:
    first, second = desk.submit("ann"), desk.submit("ann")
    desk.set(second, max_running=2)
    desk.set(first, max_running=0)
    claimed = [claim(desk, 1), claim(desk, 1)]
    assert {taken.job_id for taken in claimed if taken is not None} == {first, second}
    desk.submit("ann")
    assert claim(desk, 1) is None


def test_plans_run_whatever_the_limit(desk: Desk) -> None:
    desk.submit("ann")
    assert claim(desk, 1) is not None
    for _ in range(2):
        desk.submit("ann", queue="plans")
        assert life.claim(desk.db, queues=["plans"], worker="w", lease_seconds=LEASE, max_running=1) is not None


def test_the_queue_tells_that_an_owner_is_at_the_limit(desk: Desk) -> None:
    def place(job_id: str) -> QueuePlace | None:
        row = desk.row(job_id)
        with desk.db.reading() as session:
            return service.queue_place(session, row, 1)

    desk.submit("ann")
    waiting = desk.submit("ann", priority=9)
    assert place(waiting) == QueuePlace(position=1, reason="waits for a free cpu worker")
    claim(desk, 1)
    waiting, other = desk.submit("ann", priority=9), desk.submit("bob")
    told = place(waiting)
    assert told is not None
    assert told.reason.endswith("waits until one of the owner's 1 running jobs ends, of which there may be 1")
    # Whoever is passed over is not before anybody.
    assert place(other) == QueuePlace(position=1, reason="waits for a free cpu worker")


def stored(database: Database, stores: Stores, content: bytes, most: int) -> None:
    with Intake(database, stores.files, owner="ann", max_stored=most) as intake:
        intake.write(content)
        intake.finish(kind="data", name="file", format="idx")


@pytest.mark.embedded
def test_only_as_many_bytes_are_stored_at_once_as_may(database: Database, stores: Stores, tmp_path: Path) -> None:
    refused = at_once(lambda number: stored(database, stores, bytes([number]) * 10, 35))
    told = [error for error in refused if error is not None]
    assert len(told) == MANY - 3
    assert {type(error) for error in told} == {StorageQuotaExceededError}
    with database.reading() as session:
        assert quotas.check_room(session, "ann", 100) == 70
        assert quotas.check_room(session, "bob", 100) == 100
    # What was refused left nothing behind.
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 3


def test_equal_bytes_count_once_and_what_is_deleted_no_more(database: Database, stores: Stores) -> None:
    for _ in range(2):
        stored(database, stores, b"0123456789", 10)
    with pytest.raises(StorageQuotaExceededError, match="You have 10 of 10 bytes stored, and this is 1 more"):
        stored(database, stores, b"x", 10)
