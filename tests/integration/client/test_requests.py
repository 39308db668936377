"""Requests of the client and their answers, over real sockets."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from stillhouse import Client
from stillhouse.client import (
    ServiceUnreachableError,
    StillhouseApiError,
    StillhouseClientError,
    UnexpectedAnswerError,
)
from stillhouse.client.api import as_sent
from stillhouse.client.connection import Again
from stillhouse.client.errors import error_of
from stillhouse.contract.spec import (
    CheckpointTeacher,
    IdxData,
    IdxSplit,
    JobSpec,
    Kl,
    Mlp,
    NpzData,
    NpzSplit,
    Objective,
)
from tests.fixtures.scripted_service import Reply, ScriptedService, Seen, a_job, as_json, problem

JOB = "job_00000000000000000001"
A_KEY = {
    "id": "key_1", "name": "mine", "prefix": "sk_x", "created_at": "2026-01-02T03:04:05Z",
    "secret": "sk_xyz",  # pragma: allowlist secret
}
ART = "art_00000000000000000001"
SPEC = JobSpec(
    teacher=CheckpointTeacher(artifact=ART), student=Mlp(hidden=[64]), data=IdxData(train=IdxSplit(inputs=ART)),
    objective=Objective(terms=[Kl()]),
)


def test_a_submitted_spec_arrives_as_it_was_written(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/jobs", as_json(a_job(JOB, status="queued"), 202))
    job = client.submit(SPEC)
    assert (job.id, job.status) == (JOB, "queued")
    assert json.loads(service.seen[0].body) == {
        "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp", "hidden": [64]},
        "data": {"kind": "idx", "train": {"inputs": ART}}, "objective": {"terms": [{"kind": "kl"}]},
    }


def test_null_that_means_something_is_sent() -> None:
    spec = JobSpec(
        teacher=CheckpointTeacher(artifact=ART), student=Mlp(),
        data=NpzData(train=NpzSplit(artifact=ART, labels=None)),
    )
    assert as_sent(spec)["data"]["train"] == {"artifact": ART, "labels": None}
    assert JobSpec.model_validate(as_sent(spec)) == spec


def test_a_retried_submit_is_the_same_submit(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/jobs", problem(503, "unavailable"), Reply(b"{}", cut_after=1), as_json(a_job(JOB), 202))
    assert client.submit(SPEC).id == JOB
    keys = {seen.headers["idempotency-key"] for seen in service.seen}
    assert len(service.seen) == 3
    assert len(keys) == 1


def one_too_many(seconds: int) -> Reply:
    return replace(problem(429, "rate_limited"), headers={"Retry-After": str(seconds)})


@pytest.mark.parametrize("ask", [lambda client: list(client.jobs()), lambda client: client.create_key("mine")])
def test_who_is_one_too_many_waits_as_long_as_the_service_asks(
    service: ScriptedService, client: Client, ask: Callable[[Client], object]
) -> None:
    refused_at: list[float] = []

    def refuse(_seen: Seen) -> Reply:
        refused_at.append(time.monotonic())
        return one_too_many(2)

    page = as_json({"data": [], "has_more": False, "next_cursor": None})
    service.on("GET", "/jobs", refuse, page)
    service.on("POST", "/keys", refuse, as_json(A_KEY, 201))
    ask(client)
    assert time.monotonic() - refused_at[0] >= 2
    assert len(service.seen) == 2


def test_a_longer_wait_than_a_call_may_take_is_told_at_once(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", one_too_many(3600))
    with pytest.raises(StillhouseApiError) as caught:
        client.job(JOB)
    assert (caught.value.code, caught.value.retry_after, len(service.seen)) == ("rate_limited", 3600, 1)


def test_who_has_a_deadline_does_not_wait_beyond_it(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", one_too_many(20))
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)), one_too_many(20))
    for ask in (lambda: client.plan(SPEC, timeout=10), lambda: client.job(JOB).wait(timeout=10)):
        with pytest.raises(StillhouseApiError):
            ask()
    assert len(service.seen) == 3


def test_the_waits_of_a_call_are_bounded_together() -> None:
    again = Again(lambda _error: False)
    refused = error_of(httpx.Response(429, headers={"Retry-After": "30"}, request=httpx.Request("GET", "http://x")))
    assert [again(refused) for _ in range(3)] == [30, 30, False]


def test_two_submits_are_two_jobs(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/jobs", as_json(a_job(JOB), 202))
    client.submit(SPEC)
    client.submit({"anything": "the service decides"})
    assert len({seen.headers["idempotency-key"] for seen in service.seen}) == 2


def test_an_error_tells_all_that_the_service_said(service: ScriptedService, client: Client) -> None:
    errors = [{"pointer": "/student/hiden", "detail": "unknown key", "suggestion": "hidden"}]
    service.on("POST", "/jobs", problem(422, "invalid_spec", "Not valid.", param="/student/hiden", errors=errors))
    with pytest.raises(StillhouseApiError) as caught:
        client.submit(SPEC)
    error = caught.value
    assert (error.code, error.message, error.param, error.status) == (
        "invalid_spec", "Not valid.", "/student/hiden", 422,
    )
    assert error.errors[0].suggestion == "hidden"
    assert len(service.seen) == 1


def test_a_refused_action_tells_what_is_allowed(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    service.on("POST", f"/jobs/{JOB}/cancel", problem(409, "illegal_action", allowed_actions=["revive"]))
    with pytest.raises(StillhouseApiError) as caught:
        client.job(JOB).cancel()
    assert caught.value.allowed_actions == ["revive"]


def test_a_job_is_paused_and_resumed(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    service.on("POST", f"/jobs/{JOB}/pause", as_json(a_job(JOB, status="pausing"), 202))
    service.on("POST", f"/jobs/{JOB}/resume", as_json(a_job(JOB, status="queued"), 202))
    job = client.job(JOB)
    assert (job.pause().status, job.status) == ("pausing", "pausing")
    assert (job.resume().status, job.status) == ("queued", "queued")


def test_a_job_is_read_again_when_it_stands_otherwise(service: ScriptedService, client: Client) -> None:
    changed = Reply(json.dumps(a_job(JOB, status="succeeded", terminal=True)).encode(), headers={"ETag": '"b"'})
    known = Reply(json.dumps(a_job(JOB)).encode(), headers={"ETag": '"a"'})
    service.on("GET", f"/jobs/{JOB}", known, known, Reply(status=304, headers={"ETag": '"a"'}), changed)
    job = client.job(JOB)
    assert [job.refresh().status, job.refresh(wait=30).status, job.refresh(wait=30).status] == [
        "running", "running", "succeeded",
    ]
    asked = [(seen.headers["prefer"], seen.headers.get("if-none-match")) for seen in service.seen[1:]]
    assert asked == [("wait=0", None), ("wait=30", '"a"'), ("wait=30", '"a"')]


def test_a_retry_is_another_job(service: ScriptedService, client: Client) -> None:
    other = "job_00000000000000000002"
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB, status="failed", terminal=True)))
    service.on("POST", f"/jobs/{JOB}/retry", as_json(a_job(other, status="queued", retry_of=JOB), 202))
    job = client.job(JOB)
    retried = job.retry(idempotency_key="abc")
    assert (retried.id, retried.job.retry_of, job.id) == (other, JOB, JOB)
    job.retry()
    keys = [seen.headers["idempotency-key"] for seen in service.requests("POST", f"/jobs/{JOB}/retry")]
    assert keys[0] == "abc"
    assert keys[1] not in {"", "abc"}


def test_a_job_is_changed(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    service.on("PATCH", f"/jobs/{JOB}", as_json(a_job(JOB, priority=3)))
    job = client.job(JOB)
    assert (job.update(labels={"team": "a", "run": None}, priority=3).priority, job.job.priority) == (3, 3)
    job.update(name="new", priority=0)
    job.update(name="")
    assert [json.loads(seen.body) for seen in service.requests("PATCH", f"/jobs/{JOB}")] == [
        {"labels": {"team": "a", "run": None}, "priority": 3}, {"name": "new", "priority": 0}, {"name": None},
    ]


def test_checkpoints_are_read_and_fetched(service: ScriptedService, client: Client, tmp_path: Path) -> None:
    def told(artifact_id: str, content: bytes, **more: object) -> dict[str, object]:
        service.on("GET", f"/artifacts/{artifact_id}/content", Reply(content))
        return {
            "artifact_id": artifact_id, "attempt": 1, "phase": "distilling", "step": len(content), "size": len(content),
            "sha256": "0", "created_at": "2026-01-02T03:04:05Z", "is_last": False, **more,
        }

    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    listed = [told("art_1", b"one", metrics={"validation.loss": None}), told("art_2", b"three", is_last=True)]
    service.on("GET", f"/jobs/{JOB}/checkpoints", as_json(listed), as_json(listed), as_json([]))
    job = client.job(JOB)
    first, last = job.checkpoints()
    assert (first.step, first.metrics, last.is_last) == (3, {"validation.loss": None}, True)
    newest = job.download_checkpoint(tmp_path)
    assert (newest.name, newest.read_bytes()) == (f"{JOB}-distilling-5.safetensors", b"three")
    assert job.download_checkpoint(tmp_path / "mine", checkpoint=first).read_bytes() == b"one"
    with pytest.raises(StillhouseClientError, match="no checkpoint"):
        job.download_checkpoint(tmp_path)


def test_attempts_are_read(service: ScriptedService, client: Client) -> None:
    told = {"attempt": 1, "worker": "host:1", "started_at": "2026-01-02T03:04:05Z", "seconds": 2.5, "outcome": "newish"}
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    service.on("GET", f"/jobs/{JOB}/attempts", as_json([told]))
    (attempt,) = client.job(JOB).attempts()
    assert (attempt.attempt, attempt.worker, attempt.seconds, attempt.outcome) == (1, "host:1", 2.5, "newish")


def test_a_page_of_a_proxy_is_an_error_with_its_words(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", Reply(b"<h1>Teapot</h1>", 418))
    with pytest.raises(StillhouseApiError, match="Teapot") as caught:
        client.job(JOB)
    assert caught.value.code == "http_418"


def test_something_else_on_the_port_is_told(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json({"hello": "world"}))
    with pytest.raises(UnexpectedAnswerError, match="Stillhouse"):
        client.job(JOB)


def test_nothing_on_the_port_is_told_plainly(service: ScriptedService, client: Client) -> None:
    service.stop()
    with pytest.raises(ServiceUnreachableError, match="connection refused"):
        client.job(JOB)


@pytest.mark.parametrize("url", ["ftp://example.org", "http://", "http://:99999999"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(UnexpectedAnswerError, match="address"):
        Client(url)


def test_lists_go_through_every_page(service: ScriptedService, client: Client) -> None:
    first = {"data": [a_job(JOB)], "has_more": True, "next_cursor": "more"}
    service.on("GET", "/jobs", as_json(first), as_json({"data": [a_job("job_00000000000000000002")]}))
    found = list(client.jobs(status="running", label={"team": "vision"}))
    assert [job.id for job in found] == [JOB, "job_00000000000000000002"]
    assert service.seen[0].query == {"status": ["running"], "label": ["team:vision"]}
    assert service.seen[1].query["cursor"] == ["more"]


def test_a_status_of_a_newer_service_is_read(service: ScriptedService, client: Client) -> None:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB, status="archived", phase="polishing", brand_new=1)))
    job = client.job(JOB)
    assert (job.status, job.job.phase) == ("archived", "polishing")


def test_a_key_is_not_made_twice_when_the_answer_is_lost(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/keys", Reply(b"{}", cut_after=1))
    with pytest.raises(ServiceUnreachableError):
        client.create_key("ci")
    assert len(service.seen) == 1


def test_the_local_service_is_found_by_its_folder(
    service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(service.url)
    (tmp_path / "token").write_text("sk_local")
    monkeypatch.setenv("STILLHOUSE_HOME", str(tmp_path))
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    with Client() as client:
        client.job(JOB)
    assert service.seen[0].headers["authorization"] == "Bearer sk_local"


def test_the_local_key_is_not_shown_to_another_service(
    service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("http://127.0.0.1:1")
    (tmp_path / "token").write_text("sk_local")
    monkeypatch.setenv("STILLHOUSE_HOME", str(tmp_path))
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    with Client(service.url) as client:
        client.job(JOB)
    assert "authorization" not in service.seen[0].headers
