"""Watching a job, over real sockets that break."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from stillhouse import Client
from stillhouse.client import JobHandle, ServiceUnreachableError, StillhouseApiError
from stillhouse.client import watch as watching
from stillhouse.contract.events import Progressed, StatusChanged, UnknownEvent
from tests.fixtures.scripted_service import Reply, ScriptedService, a_job, a_stream, an_event, as_json, problem

JOB = "job_00000000000000000001"
EVENTS = f"/jobs/{JOB}/events"
STREAM = {"Content-Type": "text/event-stream"}
RUNNING = an_event(1, {"type": "status", "status": "running", "reason": "claimed"})
HALFWAY = an_event(2, {"type": "progress", "phase": "distilling", "step": 5, "percent": 50.0})
DONE = an_event(3, {"type": "status", "status": "succeeded", "reason": "finished"})


@pytest.fixture
def job(service: ScriptedService, client: Client) -> JobHandle:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    return client.job(JOB)


def streamed(*events: Mapping[str, Any], ends: bool = False, cut_after: int | None = None) -> Reply:
    return Reply(a_stream(*events, ends=ends), headers=STREAM, cut_after=cut_after)


def page(*events: Mapping[str, Any]) -> Reply:
    return as_json({"data": list(events)})


def test_each_event_comes_once_and_the_end_ends_it(service: ScriptedService, job: JobHandle) -> None:
    service.on("GET", EVENTS, streamed(RUNNING, HALFWAY, DONE, ends=True))
    recorded = list(job.watch())
    assert [one.seq for one in recorded] == [1, 2, 3]
    assert isinstance(recorded[1].event, Progressed)
    assert isinstance(recorded[2].event, StatusChanged)
    assert len(service.requests("GET", EVENTS)) == 1


def test_a_broken_stream_resumes_after_the_last_event(service: ScriptedService, job: JobHandle) -> None:
    whole = a_stream(RUNNING, HALFWAY)
    cut = Reply(whole, headers=STREAM, cut_after=len(whole) - len(a_stream(HALFWAY)) + 40)
    service.on("GET", EVENTS, cut, page(), streamed(HALFWAY, DONE, ends=True))
    assert [one.seq for one in job.watch()] == [1, 2, 3]
    assert [seen.headers.get("last-event-id") for seen in service.requests("GET", EVENTS)] == ["0", None, "1"]


def test_events_that_are_sent_again_are_not_told_again(service: ScriptedService, job: JobHandle) -> None:
    service.on("GET", EVENTS, streamed(RUNNING, HALFWAY), page(RUNNING, HALFWAY), streamed(RUNNING, HALFWAY, DONE))
    assert [one.seq for one in job.watch()] == [1, 2, 3]


@pytest.mark.parametrize("refusal", [as_json({"data": []}), problem(406, "not_acceptable"), Reply(status=501)])
def test_it_polls_where_streams_are_impossible(service: ScriptedService, job: JobHandle, refusal: Reply) -> None:
    service.on("GET", EVENTS, refusal, page(RUNNING), page(HALFWAY), page(DONE))
    assert [one.seq for one in job.watch()] == [1, 2, 3]
    asked = service.requests("GET", EVENTS)
    assert [seen.query.get("after") for seen in asked] == [None, ["0"], ["1"], ["2"]]


def test_it_polls_where_streams_stay_mute(service: ScriptedService, job: JobHandle) -> None:
    mute = streamed()
    service.on("GET", EVENTS, mute, page(RUNNING), mute, page(HALFWAY), page(DONE))
    assert [one.seq for one in job.watch()] == [1, 2, 3]
    streams = ["event-stream" in seen.headers["accept"] for seen in service.requests("GET", EVENTS)]
    assert streams == [True, False, True, False, False]


def test_unknown_events_and_statuses_come_through(service: ScriptedService, job: JobHandle) -> None:
    newer = an_event(1, {"type": "celebration", "colour": "gold"})
    archived = an_event(2, {"type": "status", "status": "archived", "reason": "by a newer service"})
    service.on("GET", EVENTS, streamed(newer, archived, ends=True))
    recorded = list(job.watch())
    assert [type(one.event) for one in recorded] == [UnknownEvent, UnknownEvent]
    assert [one.event.type for one in recorded] == ["celebration", "status"]


def test_a_job_that_has_ended_already_ends_at_once(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB, status="succeeded", terminal=True)))
    service.on("GET", EVENTS, page())
    assert list(client.job(JOB).watch(after=3)) == []


def test_a_service_that_is_away_is_waited_for(service: ScriptedService, job: JobHandle) -> None:
    service.on("GET", EVENTS, problem(503, "unavailable"), problem(503, "unavailable"), streamed(DONE, ends=True))
    assert [one.seq for one in job.watch()] == [3]


def test_patience_ends(service: ScriptedService, job: JobHandle) -> None:
    service.stop()
    with pytest.raises(ServiceUnreachableError, match="connection refused"):
        list(job.watch(patience=0.2))


def test_a_refusal_is_told(service: ScriptedService, job: JobHandle) -> None:
    service.on("GET", EVENTS, problem(404, "not_found"))
    with pytest.raises(StillhouseApiError) as caught:
        list(job.watch())
    assert caught.value.code == "not_found"


def test_wait_gives_the_job_as_it_ended(service: ScriptedService, client: Client) -> None:
    ended = a_job(JOB, status="failed", terminal=True, error={
        "code": "diverged", "message": "NaN", "blame": "user", "retryable": False, "step": 7,
    })
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)), as_json(ended))
    service.on("GET", EVENTS, streamed(DONE, ends=True))
    job = client.job(JOB).wait()
    assert job.error is not None
    assert (job.error.code, job.error.step) == ("diverged", 7)


def test_waiting_ends_at_the_timeout(job: JobHandle) -> None:
    with pytest.raises(TimeoutError, match="it goes on"):
        job.wait(timeout=0.05)


def test_silence_counts_as_a_broken_stream() -> None:
    # The service sends a comment every 15 s.
    assert 15 < watching.STREAM_SILENCE < 60


def test_an_event_is_the_json_of_the_contract() -> None:
    assert json.loads(a_stream(DONE).split(b"data: ")[1].split(b"\n")[0])["seq"] == 3
