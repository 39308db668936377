import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from sqlalchemy import QueuePool

from app.jobs import watching
from stillhouse.contract.events import RecordedEvent
from tests.fixtures.service import ADMIN_KEY, Service, bearer, progressed, running_service
from tests.fixtures.waiting import wait_until

SSE = {"Accept": "text/event-stream"}
FILES = {"bundle": b"PK"}


def watched(service: Service, job_id: str, query: str = "", **headers: str) -> Iterator[ServerSentEvent]:
    with service.client.stream("GET", f"/jobs/{job_id}/events{query}", headers={**SSE, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        yield from EventSource(response).iter_sse()


def test_a_job_is_watched_from_its_first_event_to_its_end(either_service: Service) -> None:
    job_id = either_service.submitted()
    frames = watched(either_service, job_id)
    first = next(frames)
    assert (first.event, first.id, first.retry) == ("status", "1", 3000)
    claim = either_service.claim()
    either_service.record(claim, progressed(10), progressed(20))
    seen = [first, *(next(frames) for _ in range(3))]
    either_service.succeed(claim, FILES)
    seen += frames
    assert [frame.event for frame in seen] == ["status", "status", "progress", "progress", "finished", "status", "end"]
    assert [frame.id for frame in seen] == ["1", "2", "3", "4", "5", "6", "6"]
    recorded = [RecordedEvent.model_validate_json(frame.data) for frame in seen[:-1]]
    assert [event.seq for event in recorded] == [1, 2, 3, 4, 5, 6]
    assert recorded[-1].ends_job
    page = either_service.client.get(f"/jobs/{job_id}/events").json()
    assert page["data"] == [json.loads(frame.data) for frame in seen[:-1]]


def test_a_watcher_goes_on_where_it_left_off_and_hears_when_all_is_told(service: Service) -> None:
    job_id = service.submitted()
    claim = service.claim()
    service.record(claim, progressed(10))
    service.succeed(claim, FILES)
    assert [frame.id for frame in watched(service, job_id, "?after=3")] == ["4", "5", "5"]
    assert [frame.id for frame in watched(service, job_id, "?after=1", **{"Last-Event-ID": "4"})] == ["5", "5"]
    for query, headers in (("?after=5", {}), ("", {"Last-Event-ID": "5"}), ("", {"Last-Event-ID": "9" * 60})):
        done = service.client.get(f"/jobs/{job_id}/events{query}", headers={**SSE, **headers})
        assert (done.status_code, done.content) == (204, b"")


def test_events_are_read_in_pages(service: Service) -> None:
    job_id = service.submitted()
    service.record(service.claim(), *(progressed(step) for step in range(1, 6)))

    def seqs(**params: int) -> tuple[list[int], bool]:
        page = service.client.get(f"/jobs/{job_id}/events", params=params).json()
        return [event["seq"] for event in page["data"]], page["has_more"]

    assert seqs() == ([1, 2, 3, 4, 5, 6, 7], False)
    assert seqs(after=2, limit=2) == ([3, 4], True)
    assert seqs(after=5, limit=2) == ([6, 7], False)
    assert seqs(after=99) == ([], False)
    assert service.client.get(f"/jobs/{job_id}/events", params={"after": -1}).json()["code"] == "invalid_request"
    assert service.client.get(f"/jobs/{job_id}/events", params={"after": 2**70}).json()["code"] == "invalid_request"


def test_the_doorbell_wakes_watchers_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 120.0)
    job_id = service.submitted()
    claim = service.claim()
    frames = watched(service, job_id)
    assert [next(frames).id, next(frames).id] == ["1", "2"]
    begun = time.monotonic()
    service.record(claim, progressed(10))
    assert next(frames).id == "3"
    service.client.post(f"/jobs/{job_id}/cancel")
    assert next(frames).event == "status"
    assert time.monotonic() - begun < 60


def test_without_a_doorbell_events_come_a_little_later(sqlite_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, f"redis+socket://{tmp_path}/nobody.sock", tmp_path) as service:
        job_id = service.submitted()
        frames = watched(service, job_id)
        assert next(frames).id == "1"
        service.succeed(service.claim(), FILES)
        assert [frame.event for frame in frames] == ["status", "finished", "status", "end"]


def test_many_watchers_hold_no_connection_while_they_wait(service: Service) -> None:
    job_id = service.submitted()
    claim = service.claim()
    limits = httpx.Limits(max_connections=None)
    base_url = f"http://127.0.0.1:{service.port}"

    async def watch(client: httpx.AsyncClient, begun: asyncio.Semaphore) -> list[str]:
        async with client.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as response:
            seen: list[str] = []
            async for frame in EventSource(response).aiter_sse():
                seen.append(frame.event)
                if len(seen) == 2:
                    begun.release()
            return seen

    async def scenario() -> tuple[int, list[list[str]]]:
        begun = asyncio.Semaphore(0)
        async with httpx.AsyncClient(base_url=base_url, headers=bearer(ADMIN_KEY), limits=limits, timeout=60) as client:
            watchers = [asyncio.create_task(watch(client, begun)) for _ in range(200)]
            for _ in watchers:
                await begun.acquire()
            pool = service.parts.db.engine.pool
            assert isinstance(pool, QueuePool)
            held = pool.checkedout()
            await asyncio.to_thread(service.record, claim, progressed(10))
            await asyncio.to_thread(service.succeed, claim, FILES)
            return held, await asyncio.gather(*watchers)

    held, texts = asyncio.run(scenario())
    assert held <= 1
    assert {tuple(seen) for seen in texts} == {("status", "status", "progress", "finished", "status", "end")}
    wait_until(lambda: service.parts.watching.num_watched == 0)


def test_a_watcher_that_leaves_is_forgotten(service: Service) -> None:
    job_id = service.submitted()
    with service.client.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as response:
        pieces = response.iter_bytes()
        assert next(pieces).startswith(b"retry: 3000\n")
        wait_until(lambda: service.parts.watching.num_watched == 1)
    wait_until(lambda: service.parts.watching.num_watched == 0)


def test_a_service_that_stops_lets_its_watchers_go(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, broker_url, tmp_path) as service:
        job_id = service.submitted()
        frames = watched(service, job_id)
        next(frames)
        service.parts.watching.close()
        assert list(frames) == []
