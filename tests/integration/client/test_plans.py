"""Plans of the client: the answer is the same whether it comes at once or later."""

import json
from typing import Any

import pytest

from stillhouse import Client
from stillhouse.client import StillhouseApiError, StillhouseClientError, api
from stillhouse.contract.failures import StillhouseError, WeightsMismatchError, WorkerLostError
from stillhouse.contract.spec import CheckpointTeacher, IdxData, IdxSplit, JobSpec, Mlp
from tests.fixtures.plans import small_plan
from tests.fixtures.scripted_service import Reply, ScriptedService, as_json, problem

PLAN = "plan_00000000000000000001"
ART = "art_00000000000000000001"
SPEC = JobSpec(teacher=CheckpointTeacher(artifact=ART), student=Mlp(), data=IdxData(train=IdxSplit(inputs=ART)))


@pytest.fixture(autouse=True)
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PLAN_POLL", 0.01)


def planning(status: str, code: int = 200, **fields: Any) -> Reply:  # noqa: ANN401 - fields of a plan's resource
    return as_json({
        "id": PLAN, "status": status, "terminal": status in {"succeeded", "failed", "cancelled"}, "attempt": 1,
        "created_at": "2026-01-02T03:04:05Z", **fields,
    }, code)


def test_a_plan_comes_with_the_answer(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", planning("succeeded", plan=small_plan().model_dump(mode="json")))
    assert client.plan(SPEC) == small_plan()
    (asked,) = service.seen
    assert asked.headers["prefer"] == "wait=60"
    assert json.loads(asked.body) == {
        "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp"},
        "data": {"kind": "idx", "train": {"inputs": ART}},
    }


def test_a_plan_of_a_newer_service_is_read(service: ScriptedService, client: Client) -> None:
    made = small_plan().model_dump(mode="json") | {"weather": "fine"}
    service.on("POST", "/plans", planning("succeeded", plan=made))
    assert client.plan(SPEC) == small_plan()


def test_a_plan_that_takes_longer_is_waited_for(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", planning("queued", 202))
    later = planning("succeeded", plan=small_plan().model_dump(mode="json"))
    service.on("GET", f"/plans/{PLAN}", planning("running"), planning("running"), later)
    assert client.plan(SPEC) == small_plan()


def test_a_mistake_that_is_found_at_once_is_an_error(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", problem(422, "weights_mismatch", "missing: head", param="/teacher/architecture"))
    with pytest.raises(StillhouseApiError) as caught:
        client.plan(SPEC)
    assert (caught.value.code, caught.value.param) == ("weights_mismatch", "/teacher/architecture")


@pytest.mark.parametrize(
    ("error", "status"),
    [(WeightsMismatchError("missing: head", param="/teacher/architecture"), 422), (WorkerLostError(), 500)],
)
def test_a_mistake_that_is_found_later_is_the_same_error(
    service: ScriptedService, client: Client, error: StillhouseError, status: int
) -> None:
    service.on("POST", "/plans", planning("queued", 202))
    service.on("GET", f"/plans/{PLAN}", planning("failed", error=error.as_failure().model_dump(mode="json")))
    with pytest.raises(StillhouseApiError) as caught:
        client.plan(SPEC)
    told = caught.value
    assert (told.code, told.param, told.message, told.retryable) == (
        error.code, error.param, error.message, error.retryable
    )
    assert told.status == status


def test_a_cancelled_plan_is_told(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", planning("cancelled"))
    with pytest.raises(StillhouseClientError, match="was cancelled"):
        client.plan(SPEC)


def test_patience_ends(service: ScriptedService, client: Client) -> None:
    service.on("POST", "/plans", planning("queued", 202))
    service.on("GET", f"/plans/{PLAN}", planning("running"))
    with pytest.raises(TimeoutError, match=PLAN):
        client.plan(SPEC, timeout=0.2)
    assert service.seen[0].headers["prefer"] == "wait=0"
