from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.jobs import life
from app.jobs.models import JobRow
from stillhouse.contract.events import Planned
from stillhouse.contract.failures import (
    Blame,
    Failure,
    StagingFailedError,
    StillhouseError,
    TrainerCrashedError,
    WeightsMismatchError,
    WorkerLostError,
)
from stillhouse.contract.resources import AttemptLog, Planning, Problem
from tests.fixtures.bells import listening
from tests.fixtures.plans import small_plan
from tests.fixtures.service import ADMIN_KEY, Service, bearer
from tests.fixtures.waiting import wait_until

PATIENT, AT_ONCE = {"Prefer": "wait=60"}, {"Prefer": "wait=0"}
# As many as the framework has threads for what blocks, and one more.
MORE_THAN_THREADS = 41


@contextmanager
def asked(service: Service, **sections: object) -> Iterator["Future[httpx.Response]"]:
    """A client that waits for a plan which is queued."""
    spec = service.spec(**sections)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.client.post, "/plans", json=spec, headers=PATIENT)
        wait_until(lambda: answer.done() or bool(plans(service)))
        assert not answer.done(), answer.result().text
        yield answer


def plans(service: Service) -> list[JobRow]:
    with service.parts.db.reading() as session:
        return list(session.query(JobRow).where(JobRow.kind == "plan"))


def make(service: Service, queue: str = "plans") -> str:
    """Be the worker of one plan."""
    claim = service.claim(queue)
    life.plan(service.parts.db, claim, Planned(plan=small_plan()))
    service.parts.announcer.announce(claim.job_id)
    return claim.job_id


def fail(service: Service, failure: Failure) -> str:
    """Be the worker of a plan that fails."""
    claim = service.claim("plans")
    life.fail(service.parts.db, claim, failure)
    service.parts.announcer.announce(claim.job_id)
    return claim.job_id


def test_a_plan_that_is_made_in_time_is_the_answer(either_service: Service) -> None:
    with asked(either_service) as answer:
        plan_id = make(either_service)
        response = answer.result(30)
    told = Planning.model_validate(response.json())
    assert (response.status_code, response.headers["location"]) == (200, f"/plans/{plan_id}")
    assert (told.id, told.status, told.terminal, told.attempt, told.error) == (plan_id, "succeeded", True, 1, None)
    assert told.plan == small_plan()
    assert Planning.model_validate(either_service.client.get(f"/plans/{plan_id}").json()) == told


def test_a_plan_is_no_job_and_a_job_no_plan(either_service: Service) -> None:
    client = either_service.client
    plan_id = client.post("/plans", json=either_service.spec(), headers=AT_ONCE).json()["id"]
    job_id = either_service.submitted()
    assert [job["id"] for job in client.get("/jobs").json()["data"]] == [job_id]
    for path in ("", "/events", "/metrics", "/logs", "/report", "/model"):
        assert client.get(f"/jobs/{plan_id}{path}").status_code == 404, path
    assert client.post(f"/jobs/{plan_id}/cancel").status_code == 404
    for path in ("", "/logs"):
        assert client.get(f"/plans/{job_id}{path}").status_code == 404, path
    assert client.post(f"/plans/{job_id}/cancel").status_code == 404


@pytest.mark.parametrize("prefer", ["wait=1", "respond-async, wait=1"])
def test_a_plan_that_takes_longer_is_told_where_to_find(service: Service, prefer: str) -> None:
    response = service.client.post("/plans", json=service.spec(), headers={"Prefer": prefer})
    told = Planning.model_validate(response.json())
    assert (response.status_code, response.headers["location"]) == (202, f"/plans/{told.id}")
    assert response.headers["preference-applied"] == "wait=1"
    assert (told.status, told.terminal, told.plan, told.error) == ("queued", False, None, None)
    assert told.queue is not None
    assert (told.queue.position, told.queue.reason) == (1, "waits for a worker's plan slot")
    assert make(service) == told.id
    later = Planning.model_validate(service.client.get(response.headers["location"]).json())
    assert (later.status, later.plan, later.queue) == ("succeeded", small_plan(), None)


def test_a_client_that_does_not_want_to_wait_does_not(service: Service) -> None:
    response = service.client.post("/plans", json=service.spec(), headers={"Prefer": "respond-async"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=0")


def test_what_fails_preflight_is_the_problem(either_service: Service) -> None:
    failure = WeightsMismatchError("missing: body.4.weight", param="/teacher/architecture").as_failure()
    with asked(either_service) as answer:
        plan_id = fail(either_service, failure)
        response = answer.result(30)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    problem = Problem.model_validate(response.json())
    assert (problem.status, problem.code, problem.param, problem.detail, problem.blame, problem.retryable) == (
        422, "weights_mismatch", "/teacher/architecture", "missing: body.4.weight", "user", False,
    )
    assert problem.title == "The weights do not belong to the named architecture"
    assert problem.instance == response.headers["location"] == f"/plans/{plan_id}"
    assert problem.request_id == response.headers["x-request-id"]
    stored = Planning.model_validate(either_service.client.get(f"/plans/{plan_id}").json())
    assert (stored.status, stored.plan, stored.error) == ("failed", None, failure)


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (TrainerCrashedError(), 500, None),
        (WorkerLostError(), 503, "2"),
        (StagingFailedError(), 503, "2"),
        (Failure(code="of_tomorrow", message="x", blame=Blame.USER, retryable=False), 422, None),
        (Failure(code="of_tomorrow", message="x", blame=Blame.SYSTEM, retryable=False), 500, None),
        (Failure(code="of_tomorrow", message="x", blame=Blame.INFRASTRUCTURE, retryable=False), 503, None),
    ],
)
def test_who_is_to_blame_decides_the_status(
    service: Service, failure: StillhouseError | Failure, status: int, retry_after: str | None
) -> None:
    failure = failure.as_failure() if isinstance(failure, StillhouseError) else failure
    with asked(service) as answer:
        fail(service, failure)
        response = answer.result(30)
    assert (response.status_code, response.json()["code"]) == (status, failure.code)
    assert response.headers.get("retry-after") == retry_after


def test_what_post_jobs_refuses_is_refused_alike(service: Service) -> None:
    wrong: list[dict[str, Any]] = [
        {"content": b"{"}, {"content": b"{}"}, {"content": b" " * 1_048_577},
        {"json": service.spec(student={"kind": "mlp", "hiden": [4]})},
        {"json": service.spec(student={"kind": "mlp", "input_shape": [4]})},
    ]
    for body in wrong:
        told = [service.client.post(path, **body).json() for path in ("/plans", "/jobs")]
        for problem in told:
            del problem["instance"], problem["request_id"]
        assert told[0] == told[1]
        assert told[0]["code"]
    assert plans(service) == []


def test_another_owners_plan_is_not_found(service: Service) -> None:
    plan_id = service.client.post("/plans", json=service.spec(), headers=AT_ONCE).json()["id"]
    with service.new_owner("bob") as bob:
        assert bob.get(f"/plans/{plan_id}").json()["code"] == "not_found"
        assert bob.get(f"/plans/{plan_id}/logs").status_code == 404
        assert bob.post(f"/plans/{plan_id}/cancel").status_code == 404
    assert service.client.get(f"/plans/{plan_id}").json()["status"] == "queued"


def test_a_plan_is_rung_where_its_job_would_run(service: Service, broker_url: str) -> None:
    with listening(broker_url, "plans", "plans-gpu") as next_ring:
        ids = [
            service.client.post("/plans", json=service.spec(device=device), headers=AT_ONCE).json()["id"]
            for device in ("auto", "cuda")
        ]
        rung = [next_ring(queue) for queue in ("plans", "plans-gpu")]
    assert [plan_id in ring for plan_id, ring in zip(ids, rung, strict=True)] == [True] * 2
    assert [make(service, queue) for queue in ("plans", "plans-gpu")] == ids


def test_cancelling_ends_the_waiting(either_service: Service) -> None:
    with asked(either_service) as answer:
        (row,) = plans(either_service)
        cancelled = either_service.client.post(f"/plans/{row.id}/cancel")
        response = answer.result(30)
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert (response.status_code, response.json()["status"], response.json()["plan"]) == (200, "cancelled", None)
    again = either_service.client.post(f"/plans/{row.id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "illegal_action")
    assert again.json()["detail"].startswith("The plan has cancelled")


def test_a_client_that_hangs_up_does_not_cancel(service: Service) -> None:
    spec = service.spec()
    with pytest.raises(httpx.ReadTimeout):
        service.client.post("/plans", json=spec, headers=PATIENT, timeout=0.5)
    wait_until(lambda: bool(plans(service)))
    (row,) = plans(service)
    assert row.status == "queued"
    assert make(service) == row.id


def test_waiting_holds_no_thread(service: Service) -> None:
    url, headers, spec = f"http://127.0.0.1:{service.port}/plans", bearer(ADMIN_KEY) | PATIENT, service.spec()
    with ThreadPoolExecutor(MORE_THAN_THREADS) as pool:
        answers = [
            pool.submit(httpx.post, url, json=spec, headers=headers, timeout=60, trust_env=False)
            for _ in range(MORE_THAN_THREADS)
        ]
        wait_until(lambda: len(plans(service)) == MORE_THAN_THREADS)
        assert service.client.get("/jobs").status_code == 200
        assert not any(answer.done() for answer in answers)
        for row in plans(service):
            service.client.post(f"/plans/{row.id}/cancel")
        assert {answer.result(30).status_code for answer in answers} == {200}


def test_a_service_that_ends_lets_go_of_who_waits(service: Service) -> None:
    with asked(service) as answer:
        service.parts.watching.close()
        assert answer.result(30).status_code == 202


def test_an_artifact_is_kept_for_a_plan_that_waits(service: Service) -> None:
    spec = service.spec()
    plan_id = service.client.post("/plans", json=spec, headers=AT_ONCE).json()["id"]
    path = f"/artifacts/{spec['teacher']['artifact']}"
    refused = service.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "artifact_in_use")
    assert plan_id in refused.json()["detail"]
    make(service)
    assert service.client.delete(path).status_code == 204
    assert service.client.get(f"/plans/{plan_id}").json()["status"] == "succeeded"


def test_what_the_trainer_printed_is_told(service: Service) -> None:
    plan_id = service.client.post("/plans", json=service.spec(), headers=AT_ONCE).json()["id"]
    claim = service.claim("plans")
    life.save_log(service.parts.db, claim, "a warning of torch", truncated=False)
    (log,) = service.client.get(f"/plans/{plan_id}/logs").json()
    assert AttemptLog.model_validate(log).text == "a warning of torch"


def test_plans_are_counted_apart(service: Service) -> None:
    service.client.post("/plans", json=service.spec(), headers=AT_ONCE)
    lines = service.client.get("/metrics").text.splitlines()
    assert 'stillhouse_jobs{queue="plans",status="queued"} 1.0' in lines
    assert 'stillhouse_jobs{queue="cpu",status="queued"} 0.0' in lines
    assert 'stillhouse_queue_age_seconds{queue="cpu"} 0.0' in lines
