"""The API's side of jobs: submit, find, list."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.artifacts import service as artifacts
from app.jobs import service
from app.jobs.models import JobRow
from app.kit.paging import Slice
from stillhouse.contract.failures import InvalidCursorError, NotFoundError, UnknownArtifactError
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk, raw_spec, upload

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


def page(desk: Desk, owner: str = "ann", **filters: Any) -> Slice[JobRow]:  # noqa: ANN401 - those of the service
    with desk.db.reading() as session:
        return service.page(session, owner, **filters)


def ids(rows: Sequence[JobRow]) -> list[str]:
    return [row.id for row in rows]


def test_a_job_begins_queued(desk: Desk) -> None:
    job_id = desk.submit(name="digits", labels={"team": "vision"})
    row = desk.row(job_id)
    assert (row.owner, row.name, row.labels, row.queue) == ("ann", "digits", {"team": "vision"}, "cpu")
    assert (row.status, row.attempt, row.losses, row.last_seq) == (Status.QUEUED, 0, 0, 1)
    assert row.queued_at is not None
    assert abs(row.queued_at - row.created_at) < timedelta(seconds=5)
    assert row.created_at.utcoffset() == timedelta(0)
    [submitted] = desk.events(job_id)
    assert (submitted.seq, submitted.attempt) == (1, 0)
    assert desk.statuses(job_id) == [Status.QUEUED]


def test_the_spec_is_kept_as_it_was_sent(desk: Desk) -> None:
    artifact_id = upload(desk.db, desk.stores).id
    raw = {"seed": 2**62, "name": "z\u00e9ro", **raw_spec(artifact_id), "device": "cpu"}
    with desk.db.writing() as session:
        job_id = service.submit(
            session, owner="ann", spec=JobSpec.model_validate(raw), raw=raw, queue="cpu"
        ).id
    row = desk.row(job_id)
    assert row.spec == raw
    assert list(row.spec) == list(raw)
    assert row.spec_version == 1


def test_text_that_databases_refuse_is_replaced(desk: Desk) -> None:
    job_id = desk.submit(name="a\0b", labels={"k": "\0"})
    row = desk.row(job_id)
    assert (row.name, row.labels["k"], row.spec["name"]) == ("a\ufffdb", "\ufffd", "a\ufffdb")
    assert ids(page(desk, name="a\0b", labels={"k": "\0"}).rows) == [job_id]
    with desk.db.reading() as session, pytest.raises(NotFoundError):
        service.find(session, "ann", "job_\0\ud800")


@pytest.mark.parametrize("kind", ["nobody's", "another's", "deleted"])
def test_unknown_artifacts_are_refused(desk: Desk, kind: str) -> None:
    artifact_id = "art_00000000000000000000"
    if kind == "another's":
        artifact_id = upload(desk.db, desk.stores, owner="bob").id
    if kind == "deleted":
        artifact_id = upload(desk.db, desk.stores).id
        artifacts.delete(desk.db, desk.stores, owner="ann", artifact_id=artifact_id)
    raw = raw_spec(artifact_id)
    with pytest.raises(UnknownArtifactError) as caught, desk.db.writing() as session:
        service.submit(session, owner="ann", spec=JobSpec.model_validate(raw), raw=raw, queue="cpu")
    assert caught.value.param == "/data/train/inputs"
    assert page(desk).rows == []


def test_another_owners_job_is_not_found(desk: Desk) -> None:
    job_id = desk.submit("ann")
    with desk.db.reading() as session:
        assert service.find(session, "ann", job_id).id == job_id
        with pytest.raises(NotFoundError):
            service.find(session, "bob", job_id)
    assert page(desk, "bob").rows == []


def walk(desk: Desk, limit: int, **filters: Any) -> list[str]:  # noqa: ANN401 - those of the service
    found: list[str] = []
    cursor = None
    while True:
        part = page(desk, limit=limit, cursor=cursor, **filters)
        found += ids(part.rows)
        cursor = part.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_are_whole_when_times_are_equal(desk: Desk, limit: int) -> None:
    jobs = sorted((desk.submit() for _ in range(7)), reverse=True)
    for job_id in jobs:
        desk.set(job_id, created_at=EPOCH)
    assert walk(desk, limit) == jobs


def test_pages_go_from_new_to_old_and_do_not_move(desk: Desk) -> None:
    jobs = [desk.submit() for _ in range(4)]
    for number, job_id in enumerate(jobs):
        desk.set(job_id, created_at=EPOCH + timedelta(microseconds=number))
    first = page(desk, limit=2)
    assert ids(first.rows) == [jobs[3], jobs[2]]
    late = desk.submit()
    desk.set(late, created_at=EPOCH + timedelta(days=1))
    second = page(desk, limit=2, cursor=first.next_cursor)
    assert ids(second.rows) == [jobs[1], jobs[0]]
    assert second.next_cursor is None


@pytest.mark.parametrize("cursor", [
    "", "x", "%", "\u00e9", "\ud800", "bm90IGpzb24", "W10", "WzEsMl0", "WyIyMDMwLTAxLTAxIiwieCJd", "bnVsbA",
])
def test_a_cursor_that_was_not_given_out_is_refused(desk: Desk, cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        page(desk, cursor=cursor)


def test_filters(desk: Desk) -> None:
    digits = desk.submit(name="digits", labels={"team": "vision", "run.no/1-a_b": "5"})
    words = desk.submit(name="words", labels={"team": "text"})
    desk.cancel(words)
    assert ids(page(desk, name="digits").rows) == [digits]
    assert ids(page(desk, status=Status.CANCELLED).rows) == [words]
    assert ids(page(desk, labels={"team": "vision"}).rows) == [digits]
    assert ids(page(desk, labels={"team": "vision", "run.no/1-a_b": "5"}).rows) == [digits]
    assert ids(page(desk, labels={"team": "vision", "run.no/1-a_b": "6"}).rows) == []
    assert ids(page(desk, labels={"team": "text"}, status=Status.QUEUED).rows) == []
    assert ids(page(desk, labels={"absent": "x"}).rows) == []


@pytest.mark.parametrize("key", ["", '"', 'a"b', "$", "a b", "'", "\0", "x" * 64])
def test_no_label_key_breaks_the_query(desk: Desk, key: str) -> None:
    desk.submit(labels={"a": "b"})
    assert page(desk, labels={key: "b"}).rows == []


def test_pages_of_a_filter(desk: Desk) -> None:
    jobs = [desk.submit(labels={"n": str(number % 2)}) for number in range(6)]
    assert sorted(walk(desk, 2, labels={"n": "1"})) == sorted(jobs[1::2])
