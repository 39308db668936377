"""What a user asks of a job that is there, over HTTP."""

import json

import redis

from app.doorbell import redis_url
from app.jobs import life
from stillhouse.contract.status import Request
from tests.fixtures.service import Service


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
    job_id = service.submitted()
    service.client.post(f"/jobs/{job_id}/pause")
    with redis.Redis.from_url(redis_url(broker_url)) as broker:
        broker.delete("cpu")
        service.client.post(f"/jobs/{job_id}/resume")
        ring = json.loads(broker.lindex("cpu", 0) or b"{}")
        broker.delete("cpu")
    assert job_id in ring["headers"]["argsrepr"]


def test_another_owners_job_is_neither_paused_nor_resumed(service: Service) -> None:
    job_id = service.submitted()
    with service.new_owner("bob") as bob:
        for action in ("pause", "resume"):
            assert bob.post(f"/jobs/{job_id}/{action}").status_code == 404
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "queued"
