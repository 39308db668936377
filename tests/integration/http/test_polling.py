"""GET /jobs/{id} by who comes again: validators, and answers that wait for a change."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import QueuePool

from app.jobs import reading
from stillhouse.contract.resources import Job
from tests.fixtures.service import ADMIN_KEY, Service, bearer, progressed, running_service
from tests.fixtures.waiting import wait_until

FILES = {"bundle": b"PK"}


def etag(service: Service, job_id: str) -> str:
    return service.client.get(f"/jobs/{job_id}").headers["etag"]


@contextmanager
def asked(service: Service, job_id: str, *, wait: int = 60, known: str = "") -> Iterator["Future[httpx.Response]"]:
    """A request that waits, on a thread of its own; the block begins when it waits."""
    headers = {"Prefer": f"wait={wait}"} | ({"If-None-Match": known} if known else {})
    with ThreadPoolExecutor(1) as pool, service.client_with(ADMIN_KEY) as client:
        answer = pool.submit(client.get, f"/jobs/{job_id}", headers=headers, timeout=90)
        wait_until(lambda: service.parts.watching.num_watched == 1 or answer.done(), 60)
        yield answer


def test_what_is_known_is_not_sent_again(either_service: Service) -> None:
    job_id = either_service.submitted()
    first = either_service.client.get(f"/jobs/{job_id}")
    assert first.headers["cache-control"] == "private, no-cache"
    assert "preference-applied" not in first.headers
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = either_service.client.get(f"/jobs/{job_id}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = either_service.client.get(f"/jobs/{job_id}", headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)
    assert Job.model_validate_json(other.content).id == job_id


def test_the_validator_changes_with_all_that_is_told(either_service: Service) -> None:
    first, job_id = either_service.submitted(), either_service.submitted()
    seen = [etag(either_service, job_id)]
    assert etag(either_service, job_id) == seen[0]
    claim = either_service.claim()
    assert claim.job_id == first
    seen.append(etag(either_service, job_id))  # its place in the queue, by what happened to another
    assert either_service.client.get(f"/jobs/{job_id}").json()["queue"]["position"] == 1
    claim = either_service.claim()
    seen.append(etag(either_service, job_id))
    either_service.record(claim, progressed(1))
    seen.append(etag(either_service, job_id))
    either_service.record(claim, progressed(1))  # the same again: only the log tells
    seen.append(etag(either_service, job_id))
    either_service.succeed(claim, FILES)
    seen.append(etag(either_service, job_id))
    assert len(set(seen)) == len(seen)


def test_a_job_that_stalls_has_another_validator(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, broker_url, tmp_path, stalled_seconds=60) as service:
        job_id = service.submitted()
        service.claim()
        before = etag(service, job_id)
    with running_service(sqlite_url, broker_url, tmp_path, stalled_seconds=0) as service:
        assert service.client.get(f"/jobs/{job_id}").json()["stalled"]
        assert etag(service, job_id) != before


def test_an_answer_waits_for_the_next_event(either_service: Service) -> None:
    job_id = either_service.submitted()
    claim = either_service.claim()
    for step, names_what_it_knows in ((10, False), (20, True)):
        known = etag(either_service, job_id) if names_what_it_knows else ""
        with asked(either_service, job_id, known=known) as answer:
            assert not answer.done()
            either_service.record(claim, progressed(step))
            response = answer.result(60)
        assert (response.status_code, response.json()["progress"]["step"]) == (200, step)
        assert response.headers["preference-applied"] == "wait=60"


def test_an_answer_does_not_wait_for_what_has_changed_already(service: Service) -> None:
    job_id = service.submitted()
    known = etag(service, job_id)
    service.claim()
    begun = time.monotonic()
    headers = {"Prefer": "wait=60", "If-None-Match": known}
    response = service.client.get(f"/jobs/{job_id}", headers=headers)
    assert (response.status_code, response.json()["status"]) == (200, "running")
    assert time.monotonic() - begun < 30


def test_nothing_new_in_time_is_told_as_it_is(service: Service) -> None:
    job_id = service.submitted()
    known = etag(service, job_id)
    with asked(service, job_id, wait=1) as answer:
        assert (answer.result(60).status_code, answer.result().headers["etag"]) == (200, known)
    with asked(service, job_id, wait=1, known=known) as answer:
        assert (answer.result(60).status_code, answer.result().headers["preference-applied"]) == (304, "wait=1")


def test_nobody_waits_longer_than_a_minute_or_for_a_job_that_has_ended(service: Service) -> None:
    job_id = service.submitted()
    service.succeed(service.claim(), FILES)
    known = etag(service, job_id)
    for condition, status in (("", 200), (known, 304)):
        headers = {"Prefer": "wait=600"} | ({"If-None-Match": condition} if condition else {})
        response = service.client.get(f"/jobs/{job_id}", headers=headers)
        assert (response.status_code, response.headers["preference-applied"]) == (status, "wait=60")


def test_what_no_event_tells_ends_the_waiting_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOOK_SECONDS", 0.1)
    service.submitted()
    job_id = service.submitted()
    with asked(service, job_id, known=etag(service, job_id)) as answer:
        service.claim()  # the first
        response = answer.result(60)
    assert (response.status_code, response.json()["queue"]["position"]) == (200, 1)


def test_a_job_of_another_owner_is_not_waited_for(service: Service) -> None:
    job_id = service.submitted()
    with service.new_owner("bob") as bob:
        assert bob.get(f"/jobs/{job_id}", headers={"Prefer": "wait=60"}).status_code == 404


def test_many_who_wait_hold_no_connection(service: Service) -> None:
    job_id = service.submitted()
    claim = service.claim()
    limits = httpx.Limits(max_connections=None)

    async def scenario() -> tuple[int, set[int]]:
        url = f"http://127.0.0.1:{service.port}"
        async with httpx.AsyncClient(base_url=url, headers=bearer(ADMIN_KEY), limits=limits, timeout=90) as client:
            waiting = [
                asyncio.create_task(client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=60"})) for _ in range(200)
            ]
            feeds = service.parts.watching._feeds  # noqa: SLF001 - how many have begun to wait
            async with asyncio.timeout(60):
                while job_id not in feeds or feeds[job_id].num_watchers < len(waiting):  # noqa: ASYNC110 - others'
                    await asyncio.sleep(0.01)
            pool = service.parts.db.engine.pool
            assert isinstance(pool, QueuePool)
            held = pool.checkedout()
            await asyncio.to_thread(service.record, claim, progressed(10))
            answers = await asyncio.gather(*waiting)
            return held, {answer.json()["progress"]["step"] for answer in answers}

    held, steps = asyncio.run(scenario())
    assert held <= 1
    assert steps == {10}
    wait_until(lambda: service.parts.watching.num_watched == 0)


def test_a_service_that_stops_answers_those_who_wait(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, broker_url, tmp_path) as service:
        job_id = service.submitted()
        with asked(service, job_id) as answer:
            service.parts.watching.close()
            assert answer.result(30).status_code == 200
