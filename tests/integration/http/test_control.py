"""What a user asks of a job that is there, over HTTP."""

import math
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import update

from app.artifacts.service import store_file
from app.jobs import life
from app.jobs.models import JobRow
from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.report import Interruption
from stillhouse.contract.status import Phase, Request
from tests.fixtures.bells import listening
from tests.fixtures.reports import small_report
from tests.fixtures.service import Service


def etag_of(service: Service, job_id: str) -> str:
    return service.client.get(f"/jobs/{job_id}").headers["etag"]


def test_a_job_is_paused_and_resumed(either_service: Service) -> None:
    job_id = either_service.submitted()
    claim = either_service.claim()
    for _ in range(2):
        pausing = either_service.client.post(f"/jobs/{job_id}/pause")
        assert (pausing.status_code, pausing.json()["status"]) == (202, "pausing")
    early = either_service.client.post(f"/jobs/{job_id}/resume")
    assert (early.status_code, early.json()["code"]) == (409, "illegal_action")
    assert early.json()["allowed_actions"] == ["cancel"]
    life.stop(either_service.parts.db, claim, Request.PAUSE)
    paused = either_service.client.get(f"/jobs/{job_id}").json()
    assert (paused["status"], paused["terminal"], paused["allowed_actions"]) == ("paused", False, ["cancel", "resume"])
    for _ in range(2):
        resumed = either_service.client.post(f"/jobs/{job_id}/resume")
        assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
        assert resumed.json()["queue"]["position"] == 1
    assert either_service.claim().attempt == 2


def test_a_resumed_job_is_rung(service: Service, broker_url: str) -> None:
    with listening(broker_url, "cpu") as next_ring:
        job_id = service.submitted()
        assert job_id in next_ring("cpu")
        service.client.post(f"/jobs/{job_id}/pause")
        service.client.post(f"/jobs/{job_id}/resume")
        assert job_id in next_ring("cpu")


def test_another_owners_job_is_neither_paused_nor_resumed(service: Service) -> None:
    job_id = service.submitted()
    with service.new_owner("bob") as bob:
        for action in ("pause", "resume"):
            assert bob.post(f"/jobs/{job_id}/{action}").status_code == 404
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "queued"


# Retry


def ended(service: Service, how: str, **sections: object) -> str:
    """Id of a job that has ended so."""
    job_id = service.submitted(**sections)
    if how == "cancelled":
        service.client.post(f"/jobs/{job_id}/cancel")
    elif how == "failed":
        life.fail(service.parts.db, service.claim(), DivergedError().as_failure())
    else:
        service.succeed(service.claim(), {"bundle": b"PK"})
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == how
    return job_id


@pytest.mark.parametrize("how", ["cancelled", "failed", "succeeded"])
def test_what_has_ended_is_retried_as_a_new_job(either_service: Service, how: str) -> None:
    job_id = ended(either_service, how, name="digits", labels={"team": "a"}, seed=7)
    old = either_service.client.get(f"/jobs/{job_id}").json()
    assert old["allowed_actions"] == ["retry"]
    response = either_service.client.post(f"/jobs/{job_id}/retry")
    new = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/jobs/{new['id']}")
    assert new["id"] != job_id
    assert (new["retry_of"], new["status"], new["attempt"]) == (job_id, "queued", 0)
    assert {key: new[key] for key in ("spec", "name", "labels", "seed")} == {
        key: old[key] for key in ("spec", "name", "labels", "seed")
    }
    listed = either_service.client.get("/jobs").json()["data"]
    assert [(job["id"], job["retry_of"]) for job in listed] == [(new["id"], job_id), (job_id, None)]
    log = either_service.client.get(f"/jobs/{new['id']}/events").json()["data"]
    assert job_id in log[0]["event"]["reason"]
    assert either_service.claim().job_id == new["id"]
    assert either_service.client.get(f"/jobs/{job_id}").json() == old


def test_what_has_not_ended_is_not_retried(service: Service) -> None:
    job_id = service.submitted()
    refused = service.client.post(f"/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_action")
    assert refused.json()["allowed_actions"] == ["cancel", "pause"]
    with service.new_owner("bob") as bob:
        assert bob.post(f"/jobs/{job_id}/retry").status_code == 404


def test_a_retry_whose_input_is_gone_is_refused_and_names_it(either_service: Service) -> None:
    job_id = ended(either_service, "cancelled")
    teacher = either_service.client.get(f"/jobs/{job_id}").json()["spec"]["teacher"]["artifact"]
    assert either_service.client.delete(f"/artifacts/{teacher}").status_code == 204
    headers = {"Idempotency-Key": "abc"}
    for _ in range(2):  # a refusal does not use the key up
        refused = either_service.client.post(f"/jobs/{job_id}/retry", headers=headers)
        assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (
            422, "unknown_artifact", "/teacher/artifact"
        )


def test_a_retry_that_is_sent_twice_makes_one_job(either_service: Service) -> None:
    job_id, other = ended(either_service, "cancelled"), ended(either_service, "cancelled")
    headers = {"Idempotency-Key": "abc"}
    first = either_service.client.post(f"/jobs/{job_id}/retry", headers=headers)
    again = either_service.client.post(f"/jobs/{job_id}/retry", headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    mismatched = either_service.client.post(f"/jobs/{other}/retry", headers=headers)
    assert (mismatched.status_code, mismatched.json()["code"]) == (422, "idempotency_key_reused")
    assert len(either_service.client.get("/jobs").json()["data"]) == 3
    second = either_service.client.post(f"/jobs/{job_id}/retry")
    assert second.json()["id"] != first.json()["id"], "without a key, each retry is another job"


def test_a_spec_that_this_release_does_not_take_is_not_retried(service: Service) -> None:
    job_id = ended(service, "cancelled")
    with service.parts.db.writing() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(spec={"teacher": {"kind": "oracle"}}))
    refused = service.client.post(f"/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_spec")


# Cancel, and keep the best student


def test_a_cancelled_job_keeps_what_its_worker_finished(either_service: Service) -> None:
    job_id = either_service.submitted()
    claim = either_service.claim()
    cancelled = either_service.client.post(f"/jobs/{job_id}/cancel", params={"keep": "best"})
    assert (cancelled.status_code, cancelled.json()["status"], cancelled.json()["keep"]) == (202, "cancelling", "best")
    assert cancelled.json()["allowed_actions"] == ["cancel"]
    interrupted = Interruption(step=3, total_steps=9)
    either_service.succeed(claim, {"bundle": b"PK"}, small_report().model_copy(update={"interrupted": interrupted}))
    job = either_service.client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["terminal"], [file["role"] for file in job["files"]]) == ("cancelled", True, ["bundle"])
    assert either_service.client.get(f"/jobs/{job_id}/model").content == b"PK"
    report = either_service.client.get(f"/jobs/{job_id}/report").json()
    assert report["interrupted"] == {"step": 3, "total_steps": 9, "without_control": False}


def test_there_is_nothing_to_keep_of_what_waits(service: Service) -> None:
    job_id = service.submitted()
    cancelled = service.client.post(f"/jobs/{job_id}/cancel", params={"keep": "best"})
    assert (cancelled.json()["status"], cancelled.json()["files"]) == ("cancelled", [])
    log = service.client.get(f"/jobs/{job_id}/events").json()["data"]
    assert "nothing to keep" in log[-1]["event"]["reason"]


def test_only_the_best_or_nothing_is_kept(service: Service) -> None:
    job_id = service.submitted()
    refused = service.client.post(f"/jobs/{job_id}/cancel", params={"keep": "worst"})
    assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (422, "invalid_request", "keep")
    cancelled = service.client.post(f"/jobs/{job_id}/cancel", params={"keep": "none"})
    assert (cancelled.json()["status"], cancelled.json()["keep"]) == ("cancelled", None)


# Priority, labels and name


def patched(service: Service, job_id: str, change: object) -> tuple[int, dict[str, Any]]:
    response = service.client.patch(f"/jobs/{job_id}", json=change)
    return response.status_code, response.json()


def test_a_job_may_be_submitted_with_a_priority(either_service: Service) -> None:
    first, urgent = either_service.submitted(), either_service.submitted(priority=10)
    listed = either_service.client.get("/jobs").json()["data"]
    assert [(job["id"], job["priority"]) for job in listed] == [(urgent, 10), (first, 0)]
    assert either_service.client.get(f"/jobs/{first}").json()["queue"]["position"] == 2
    for wrong in (11, -11, 1.5, "high"):
        refused = either_service.client.post("/jobs", json=either_service.spec(priority=wrong))
        assert (refused.status_code, refused.json()["param"]) == (422, "/priority")


def test_a_change_is_merged(either_service: Service) -> None:
    job_id = either_service.submitted(name="old", labels={"team": "a", "run": "1", "a/b": "x"}, priority=2)
    seen = etag_of(either_service, job_id)
    change = {"labels": {"run": None, "team": "b", "new": "", "no/such": None}}
    status, job = patched(either_service, job_id, change)
    assert (status, job["labels"]) == (200, {"team": "b", "new": "", "a/b": "x"})
    assert (job["name"], job["priority"], job["status"]) == ("old", 2, "queued")
    assert etag_of(either_service, job_id) != seen
    listed = either_service.client.get("/jobs", params={"label": "team:b"}).json()["data"]
    assert [job["id"] for job in listed] == [job_id]
    assert patched(either_service, job_id, {})[1] == job
    _, job = patched(either_service, job_id, {"name": None, "labels": None, "priority": None})
    assert (job["name"], job["labels"], job["priority"]) == (None, {}, 0)
    assert job["spec"]["labels"]["team"] == "a", "the spec stays as it was sent"


@pytest.mark.parametrize(("change", "param"), [
    ({"seed": 3}, "/seed"),
    ({"name": ""}, "/name"),
    ({"priority": 11}, "/priority"),
    ({"priority": "high"}, "/priority"),
    ({"labels": {"no key!": "x"}}, "/labels/no key!"),
    ({"labels": {"a/b": 1}}, "/labels/a~1b"),
    ({"labels": {f"key{number}": "x" for number in range(16)}}, "/labels"),
    ([], "/"),
])
def test_a_change_is_checked_as_a_spec_is(service: Service, change: object, param: str) -> None:
    job_id = service.submitted(labels={"team": "a"})
    before = service.client.get(f"/jobs/{job_id}").json()
    status, refused = patched(service, job_id, change)
    assert (status, refused["code"], refused["param"]) == (422, "invalid_request", param)
    assert service.client.get(f"/jobs/{job_id}").json() == before


def test_all_but_the_priority_of_what_has_ended_is_changed(either_service: Service) -> None:
    job_id = ended(either_service, "cancelled", priority=3)
    status, job = patched(either_service, job_id, {"labels": {"kept": "yes"}, "name": "new", "priority": 3})
    assert (status, job["labels"], job["name"]) == (200, {"kept": "yes"}, "new")
    status, refused = patched(either_service, job_id, {"name": "newer", "priority": 4})
    assert (status, refused["code"], refused["allowed_actions"]) == (409, "illegal_action", ["retry"])
    job = either_service.client.get(f"/jobs/{job_id}").json()
    assert (job["name"], job["priority"]) == ("new", 3)
    retried = either_service.client.post(f"/jobs/{job_id}/retry").json()
    assert (retried["name"], retried["labels"], retried["priority"]) == ("new", {"kept": "yes"}, 3)


def test_what_waits_is_moved_and_rung_for(service: Service, broker_url: str) -> None:
    with listening(broker_url, "cpu") as next_ring:
        first, job_id = service.submitted(), service.submitted()
        assert first in next_ring("cpu")
        assert job_id in next_ring("cpu")
        assert patched(service, job_id, {"priority": 1})[1]["queue"]["position"] == 1
        assert job_id in next_ring("cpu")
    assert [service.claim().job_id, service.claim().job_id] == [job_id, first]


def test_another_owners_job_is_not_changed(service: Service) -> None:
    job_id = service.submitted(name="mine")
    with service.new_owner("bob") as bob:
        assert bob.patch(f"/jobs/{job_id}", json={"name": "his"}).status_code == 404
    assert service.client.get(f"/jobs/{job_id}").json()["name"] == "mine"


# Checkpoints and attempts


def test_checkpoints_are_told_and_downloaded_until_the_job_ends(either_service: Service) -> None:
    parts = either_service.parts
    job_id = either_service.submitted()
    path = f"/jobs/{job_id}/checkpoints"
    assert either_service.client.get(path).json() == []
    claim = either_service.claim()
    bare = CheckpointSaved(phase=Phase.SOFT_LABELS, step=2, file="c")
    scored = CheckpointSaved(
        phase=Phase.DISTILLING, step=7, file="c", metrics={"validation.accuracy": 0.5, "validation.loss": math.nan},
        evaluated_step=6, best_step=3,
    )
    for event, written in ((bare, b"first"), (scored, b"second")):
        made = store_file(
            parts.db, parts.stores, BytesIO(written), owner=claim.owner, kind="state", name="c.safetensors",
            format="checkpoint", job_id=job_id, into="files",
        )
        life.save_checkpoint(parts.db, claim, event, made.id, num_kept=2)
    first, second = either_service.client.get(path).json()
    assert (first["phase"], first["step"], first["attempt"], first["is_last"]) == ("soft_labels", 2, 1, False)
    assert (first["metrics"], first["evaluated_step"], first["best_step"]) == ({}, None, None)
    assert (second["phase"], second["step"], second["size"], second["is_last"]) == ("distilling", 7, 6, True)
    assert second["metrics"] == {"validation.accuracy": 0.5, "validation.loss": None}
    assert (second["evaluated_step"], second["best_step"]) == (6, 3)
    file = f"/artifacts/{second['artifact_id']}/content"
    whole = either_service.client.get(file)
    assert (whole.content, whole.headers["etag"]) == (b"second", f'"{second["sha256"]}"')
    part = either_service.client.get(file, headers={"Range": "bytes=3-"})
    assert (part.status_code, part.content) == (206, b"ond")
    refused = either_service.client.delete(f"/artifacts/{second['artifact_id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "artifact_in_use")
    with either_service.new_owner("bob") as bob:
        assert [bob.get(path).status_code, bob.get(file).status_code] == [404, 404]
    life.fail(parts.db, claim, DivergedError().as_failure())
    assert either_service.client.get(path).json() == []
    assert either_service.client.get(file).status_code == 404


def test_attempts_are_read_with_their_times(either_service: Service) -> None:
    job_id = either_service.submitted()
    assert either_service.client.get(f"/jobs/{job_id}/attempts").json() == []
    life.stop(either_service.parts.db, either_service.claim(), Request.DRAIN)
    either_service.claim()
    first, second = either_service.client.get(f"/jobs/{job_id}/attempts").json()
    assert (first["attempt"], first["worker"], first["outcome"]) == (1, "worker-1", "drained")
    assert first["reason"] == "the worker is shutting down"
    began, ended = (datetime.fromisoformat(first[name]) for name in ("started_at", "ended_at"))
    assert first["seconds"] == pytest.approx((ended - began).total_seconds())
    assert (second["attempt"], second["ended_at"], second["outcome"], second["reason"]) == (2, None, None, None)
    assert second["seconds"] >= 0
    with either_service.new_owner("bob") as bob:
        assert bob.get(f"/jobs/{job_id}/attempts").status_code == 404
