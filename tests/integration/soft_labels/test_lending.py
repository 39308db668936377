"""Shards of soft labels in the database: made once, lent, counted, evicted; on SQLite and PostgreSQL."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import select, update

from app.artifacts import service as artifacts
from app.artifacts.models import ArtifactRow
from app.jobs import life
from app.jobs.life import Claim, FencedError
from app.jobs.models import JobRow
from app.kit.clock import now
from app.soft_labels import service
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.events import SoftLabelsSaved
from stillhouse.contract.failures import ArtifactInUseError, DivergedError
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.waiting import wait_until, waits_for_lock

KEYS = [f"{number:064x}" for number in range(6)]
_workers = count()


def claimed(desk: Desk, owner: str = "ann") -> Claim:
    """A job of the owner that a worker has just begun."""
    desk.submit(owner)
    return desk.claim(f"worker-{next(_workers)}")


def lend(desk: Desk, claim: Claim, keys: Sequence[str] = KEYS, num_to_make: int = 100) -> service.Lending:
    return life.lend(desk.db, claim, keys, num_to_make)


def make(desk: Desk, claim: Claim, key: str, *, size: int = 10, seconds: float = 2.0) -> str:
    """Store a shard as the supervisor does; the id of its artifact."""
    event = SoftLabelsSaved(key=key, split="train", view=1, shard=3, num_rows=7, seconds=seconds, file="x")
    made = upload(
        desk.db, desk.stores, key.encode()[-2:] * (size // 2), owner=claim.owner, kind="soft_labels",
        job_id=claim.job_id,
    )
    life.save_soft_labels(desk.db, claim, event, made.id)
    return made.id


def end(desk: Desk, claim: Claim) -> None:
    life.fail(desk.db, claim, DivergedError().as_failure())


def evict(desk: Desk, *, days: float = 30, max_bytes: int = 10**9) -> int:
    with desk.db.writing() as session:
        return service.evict(session, unused_seconds=days * 24 * 3600, max_bytes=max_bytes)


def stored(desk: Desk, owner: str = "ann") -> set[str]:
    """Keys of the shards that are there."""
    with desk.db.reading() as session:
        return set(session.scalars(select(SoftLabelsRow.key).where(
            SoftLabelsRow.owner == owner, SoftLabelsRow.artifact_id.is_not(None)
        )))


def kept(desk: Desk, owner: str = "ann") -> set[str]:
    """Artifacts that are shards."""
    with desk.db.reading() as session:
        return {row.id for row in artifacts.page(session, owner, kind="soft_labels").rows}


def used(desk: Desk, artifact_id: str) -> dict[str, object]:
    with desk.db.reading() as session:
        return service.usage(session, [session.get_one(ArtifactRow, artifact_id)])[artifact_id]


def age(desk: Desk, key: str, seconds: float) -> None:
    with desk.db.writing() as session:
        session.execute(update(SoftLabelsRow).where(SoftLabelsRow.key == key).values(last_used_at=now(-seconds)))


def test_of_two_jobs_each_makes_what_the_other_does_not(desk: Desk) -> None:
    first, second = claimed(desk), claimed(desk)
    assert lend(desk, first, num_to_make=4).to_make == KEYS[:4]
    answer = lend(desk, second, num_to_make=4)
    assert (answer.to_make, answer.makers, answer.ready) == (KEYS[4:], [first.job_id], {})
    assert lend(desk, first, num_to_make=4).to_make == KEYS[:4], "what it has taken on stays its own"
    assert lend(desk, first).makers == [second.job_id]


def test_what_one_has_made_the_other_is_lent_and_counted(desk: Desk) -> None:
    first, second = claimed(desk), claimed(desk)
    lend(desk, first)
    made = {key: make(desk, first, key) for key in KEYS[:2]}
    answer = lend(desk, second)
    assert {key: row.id for key, row in answer.ready.items()} == made
    assert (answer.to_make, answer.makers, answer.seconds_saved) == ([], [first.job_id], 4.0)
    for _ in range(2):  # asking again, or being resumed, is no other use
        lend(desk, second, KEYS[:1])
    lend(desk, first, KEYS[:1])  # nor is its maker's
    assert used(desk, made[KEYS[0]])["num_uses"] == 1
    assert used(desk, made[KEYS[0]])["seconds_saved"] == 2.0
    third = claimed(desk)
    lend(desk, third)
    assert used(desk, made[KEYS[0]])["num_uses"] == 2
    assert used(desk, made[KEYS[0]])["seconds_saved"] == 4.0


def test_another_owner_is_lent_nothing_and_makes_its_own(desk: Desk) -> None:
    ann, bob = claimed(desk, "ann"), claimed(desk, "bob")
    lend(desk, ann)
    make(desk, ann, KEYS[0])
    answer = lend(desk, bob)  # even if it came to the same key
    assert (answer.ready, answer.to_make, answer.makers) == ({}, KEYS, [])
    make(desk, bob, KEYS[0])
    assert (stored(desk, "ann"), stored(desk, "bob")) == ({KEYS[0]}, {KEYS[0]})
    assert len(kept(desk, "ann") | kept(desk, "bob")) == 2


@pytest.mark.parametrize("how", ["lost", "expired", "paused"])
def test_what_a_dead_maker_took_on_is_taken_over(desk: Desk, how: str) -> None:
    first, second = claimed(desk), claimed(desk)
    lend(desk, first)
    make(desk, first, KEYS[0])
    assert lend(desk, second).to_make == []
    if how == "lost":
        life.lose(desk.db, first, "killed", 5)
    if how == "expired":
        desk.expire(first.job_id)
    if how == "paused":
        desk.set(first.job_id, status=Status.PAUSED, lease_worker=None, lease_until=None)
    answer = lend(desk, second, num_to_make=3)
    assert (list(answer.ready), answer.to_make) == ([KEYS[0]], KEYS[1:4])


def test_the_next_attempt_goes_on_where_the_last_one_died(desk: Desk) -> None:
    first = claimed(desk)
    lend(desk, first)
    make(desk, first, KEYS[0])
    life.lose(desk.db, first, "killed", 5)
    again = desk.claim("another")
    answer = lend(desk, again)
    assert (list(answer.ready), answer.to_make) == ([KEYS[0]], KEYS[1:])
    with pytest.raises(FencedError):
        lend(desk, first)
    with pytest.raises(FencedError):
        make(desk, first, KEYS[1])
    assert stored(desk) == {KEYS[0]}
    assert len(kept(desk)) == 1


def test_two_that_made_the_same_keep_one(desk: Desk) -> None:
    first, second = claimed(desk), claimed(desk)
    lend(desk, first)
    made = make(desk, second, KEYS[0])  # it did not wait
    make(desk, first, KEYS[0])
    assert kept(desk) == {made}
    assert used(desk, made)["num_uses"] == 0


def test_shards_outlive_the_job_that_made_them(desk: Desk) -> None:
    first = claimed(desk)
    lend(desk, first)
    made = make(desk, first, KEYS[0])
    left = upload(desk.db, desk.stores, b"no shard yet", kind="soft_labels", job_id=first.job_id)
    end(desk, first)
    assert kept(desk) == {made}
    with desk.db.reading() as session:
        assert session.get(ArtifactRow, left.id) is None
    second = claimed(desk)
    assert list(lend(desk, second).ready) == [KEYS[0]]


def test_what_nobody_used_for_long_goes(desk: Desk) -> None:
    first = claimed(desk)
    lend(desk, first)
    for key in KEYS[:3]:
        make(desk, first, key)
    end(desk, first)
    age(desk, KEYS[0], 31 * 24 * 3600)
    age(desk, KEYS[1], 29 * 24 * 3600)
    assert (evict(desk), evict(desk)) == (1, 0)
    assert stored(desk) == set(KEYS[1:3])
    assert artifacts.sweep(desk.db, desk.stores) == 1


def test_what_takes_too_much_room_goes_least_recently_used_first(desk: Desk) -> None:
    ann, bob = claimed(desk, "ann"), claimed(desk, "bob")
    for number, key in enumerate(KEYS):
        make(desk, ann, key, size=100)
        age(desk, key, 1000 - number)
    make(desk, bob, KEYS[0], size=100)
    end(desk, ann)
    end(desk, bob)
    third = claimed(desk)
    lend(desk, third, [KEYS[0]])  # used just now
    end(desk, third)
    assert evict(desk, max_bytes=350) == 3
    assert stored(desk) == {KEYS[0], KEYS[4], KEYS[5]}
    assert stored(desk, "bob") == {KEYS[0]}, "each owner has its own room"
    assert evict(desk, max_bytes=350) == 0


def test_what_a_job_uses_stays_however_old_and_large(desk: Desk) -> None:
    maker = claimed(desk)
    lend(desk, maker)
    for key in KEYS[:2]:
        make(desk, maker, key, size=1000)
        age(desk, key, 10**8)
    assert evict(desk, max_bytes=1) == 0, "the job that made them has not ended"
    end(desk, maker)
    user = claimed(desk)
    lend(desk, user, KEYS[:1])
    age(desk, KEYS[0], 10**8)
    assert evict(desk, max_bytes=1) == 1
    assert stored(desk) == {KEYS[0]}
    life.lose(desk.db, user, "killed", 5)  # it is to go on with them
    assert evict(desk, max_bytes=1) == 0
    end(desk, desk.claim("another"))
    assert evict(desk, max_bytes=1) == 1


def test_room_that_is_in_use_is_made_elsewhere(desk: Desk) -> None:
    maker = claimed(desk)
    for number, key in enumerate(KEYS[:4]):
        make(desk, maker, key, size=100)
        age(desk, key, 1000 - number)
    end(desk, maker)
    lend(desk, claimed(desk), KEYS[:2])
    for number, key in enumerate(KEYS[:4]):
        age(desk, key, 1000 - number)
    assert evict(desk, max_bytes=250) == 2
    assert stored(desk) == set(KEYS[:2])


def test_a_user_deletes_them_unless_a_job_needs_them(desk: Desk) -> None:
    maker = claimed(desk)
    lend(desk, maker)
    made = make(desk, maker, KEYS[0])
    end(desk, maker)
    user = claimed(desk)
    lend(desk, user, KEYS[:1])
    with pytest.raises(ArtifactInUseError, match=user.job_id):
        artifacts.delete(desk.db, desk.stores, owner="ann", artifact_id=made)
    end(desk, user)
    artifacts.delete(desk.db, desk.stores, owner="ann", artifact_id=made)
    assert (stored(desk), kept(desk)) == (set(), set())


def test_what_was_taken_on_and_never_made_is_forgotten(desk: Desk) -> None:
    maker = claimed(desk)
    lend(desk, maker)
    evict(desk)
    with desk.db.reading() as session:
        assert len(session.scalars(select(SoftLabelsRow)).all()) == len(KEYS)
    end(desk, maker)
    evict(desk)
    with desk.db.reading() as session:
        assert session.scalars(select(SoftLabelsRow)).all() == []


def test_lost_bytes_are_forgotten_and_made_again(desk: Desk) -> None:
    maker = claimed(desk)
    lend(desk, maker)
    make(desk, maker, KEYS[0])
    with desk.db.writing() as session:
        service.drop(session, "bob", KEYS)
        service.drop(session, "ann", KEYS[:1])
    assert (stored(desk), kept(desk)) == (set(), set())
    assert lend(desk, maker).to_make == KEYS


def test_many_at_once_make_each_shard_once_and_never_lock_up(desk: Desk) -> None:
    """Jobs that ask, make, are lost and end, while the reaper evicts: nothing is made twice that is still there."""
    keys = [f"{number:064x}" for number in range(24)]
    jobs = [claimed(desk) for _ in range(4)]
    made: list[str] = []
    over = threading.Event()

    def work(claim: Claim, order: list[str]) -> None:
        missing = list(order)
        while missing:
            answer = lend(desk, claim, missing, 3)
            for key in answer.to_make:
                make(desk, claim, key)
                made.append(key)
            missing = [key for key in missing if key not in answer.ready and key not in answer.to_make]

    def reap() -> None:
        while not over.is_set():
            evict(desk, max_bytes=1)

    with ThreadPoolExecutor(5) as pool:
        reaping = pool.submit(reap)
        working = [
            pool.submit(work, claim, keys if number % 2 else keys[::-1]) for number, claim in enumerate(jobs)
        ]
        try:
            for one in working:
                one.result(timeout=60)
        finally:
            over.set()
        reaping.result(timeout=60)
    assert sorted(made) == keys
    assert stored(desk) == set(keys)


def test_what_is_being_evicted_is_waited_for_and_then_made_again(postgres_desk: Desk) -> None:
    desk = postgres_desk
    maker = claimed(desk)
    lend(desk, maker)
    make(desk, maker, KEYS[0])
    end(desk, maker)
    user = claimed(desk)
    with ThreadPoolExecutor(1) as pool:
        with desk.db.writing() as session:
            assert service.evict(session, unused_seconds=10**6, max_bytes=1) == 1
            lending = pool.submit(lend, desk, user)
            wait_until(lambda: waits_for_lock(desk.db))
        assert lending.result(timeout=30).to_make == KEYS
    assert stored(desk) == set()


def test_what_is_being_lent_is_passed_over_by_the_reaper(postgres_desk: Desk) -> None:
    desk = postgres_desk
    maker = claimed(desk)
    lend(desk, maker)
    make(desk, maker, KEYS[0])
    end(desk, maker)
    user = claimed(desk)
    with desk.db.writing() as session:
        job = session.get_one(JobRow, user.job_id)
        assert list(service.lend(session, job, KEYS, 0).ready) == KEYS[:1]
        assert evict(desk, max_bytes=1) == 0  # without waiting
    assert evict(desk, max_bytes=1) == 0
    assert stored(desk) == {KEYS[0]}
