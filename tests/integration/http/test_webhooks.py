"""Webhooks through the whole service: real API, real receiver; signatures verified by the reference library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from app.jobs import life
from app.kit.clock import now
from app.webhooks.models import DeliveryRow
from stillhouse.contract.failures import DivergedError
from tests.fixtures.scripted_service import Reply, ScriptedService, Seen
from tests.fixtures.service import Service, running_service
from tests.fixtures.waiting import wait_until

PATIENCE = 60.0


@pytest.fixture
def receiver() -> Iterator[ScriptedService]:
    with ScriptedService().serving() as service:
        service.on("POST", "/hook", Reply(b"thanks"))
        yield service


@pytest.fixture
def sending(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    """An API that may send to loopback, once on each kind of database."""
    with running_service(database_url, broker_url, tmp_path, webhook_allow_private=True) as running:
        yield running


def created(service: Service, receiver: ScriptedService, **more: object) -> dict[str, Any]:
    response = service.client.post("/webhooks", json={"url": f"{receiver.url}/hook", **more})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def deliveries(service: Service, webhook_id: str, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get(f"/webhooks/{webhook_id}/deliveries", params=params).json()["data"]
    return found


def wait_for(service: Service, webhook_id: str, *statuses: str) -> None:
    wait_until(lambda: [one["status"] for one in deliveries(service, webhook_id)] == list(statuses), PATIENCE)


def verified(seen: Seen, secret: str) -> dict[str, Any]:
    found: dict[str, Any] = Verifier(secret).verify(seen.body, seen.headers)
    return found


def test_the_end_of_a_job_is_sent_signed(sending: Service, receiver: ScriptedService) -> None:
    made = created(sending, receiver, events=["job.failed"], name="mine")
    job_id = sending.submitted(name="small", labels={"team": "a"})
    life.fail(sending.parts.db, sending.claim(), DivergedError(step=3).as_failure())
    wait_for(sending, made["id"], "delivered")
    [seen] = receiver.requests("POST", "/hook")
    message = verified(seen, made["secret"])
    assert (message["type"], message["data"]["id"], message["data"]["status"]) == ("job.failed", job_id, "failed")
    assert (message["data"]["name"], message["data"]["labels"]) == ("small", {"team": "a"})
    assert message["data"]["error"]["code"] == "diverged"
    assert sending.client.get(message["data"]["links"]["job"]).json()["status"] == "failed"
    [delivery] = deliveries(sending, made["id"], status="delivered")
    assert delivery["message_id"] == seen.headers["webhook-id"]
    [attempt] = delivery["attempts"]
    assert (attempt["status"], attempt["outcome"], attempt["answer"]) == (200, "delivered", "thanks")
    with pytest.raises(WebhookVerificationError):
        verified(Seen(seen.method, seen.path, seen.query, seen.headers, seen.body + b" "), made["secret"])


def test_what_fails_is_sent_again_under_its_name(sending: Service, receiver: ScriptedService) -> None:
    receiver.on("POST", "/flaky", Reply(b"oops", 500), Reply())
    made = created(sending, receiver, url=f"{receiver.url}/flaky", events=["job.started"])
    sending.submitted()
    sending.claim()
    wait_until(lambda: len(deliveries(sending, made["id"])[0]["attempts"]) == 1, PATIENCE)
    wait_until(lambda: deliveries(sending, made["id"])[0]["attempts"][0]["outcome"] is not None, PATIENCE)
    with sending.parts.db.writing() as session:  # the clock moves on
        session.execute(update(DeliveryRow).values(next_attempt_at=now(-1)))
    wait_for(sending, made["id"], "delivered")
    first, second = receiver.requests("POST", "/flaky")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert verified(first, made["secret"]) == verified(second, made["secret"])
    told = [(one["outcome"], one["status"]) for one in deliveries(sending, made["id"])[0]["attempts"]]
    assert told == [("refused", 500), ("delivered", 200)]


def test_a_test_is_sent_and_sent_again(sending: Service, receiver: ScriptedService) -> None:
    made = created(sending, receiver, events=["job.failed"])
    sent = sending.client.post(f"/webhooks/{made['id']}/test")
    assert (sent.status_code, sent.json()["type"]) == (202, "webhook.test")
    wait_for(sending, made["id"], "delivered")
    again = sending.client.post(f"/webhooks/{made['id']}/deliveries/{sent.json()['id']}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    wait_until(lambda: len(receiver.requests("POST", "/hook")) == 2, PATIENCE)
    assert len({seen.headers["webhook-id"] for seen in receiver.requests("POST", "/hook")}) == 1
    wait_for(sending, made["id"], "delivered")


def test_a_rotated_secret_signs_beside_the_old_one(sending: Service, receiver: ScriptedService) -> None:
    made = created(sending, receiver)
    path = f"/webhooks/{made['id']}"
    rotated = sending.client.post(f"{path}/rotate")
    assert rotated.headers["cache-control"] == "no-store"
    new = rotated.json()["secret"]
    assert new != made["secret"]
    sending.client.post(f"{path}/test")
    wait_for(sending, made["id"], "delivered")
    [seen] = receiver.requests("POST", "/hook")
    assert len(seen.headers["webhook-signature"].split()) == 2
    assert verified(seen, new) == verified(seen, made["secret"])
    newest = sending.client.post(f"{path}/rotate", params={"overlap_hours": 0}).json()["secret"]
    sending.client.post(f"{path}/test")
    wait_for(sending, made["id"], "delivered", "delivered")
    seen = receiver.requests("POST", "/hook")[1]
    assert verified(seen, newest)
    with pytest.raises(WebhookVerificationError):
        verified(seen, new)


def test_a_receiver_that_is_gone_is_disabled_until_it_is_enabled(
    sending: Service, receiver: ScriptedService
) -> None:
    receiver.on("POST", "/gone", Reply(status=410))
    made = created(sending, receiver, url=f"{receiver.url}/gone")
    path = f"/webhooks/{made['id']}"
    sent = sending.client.post(f"{path}/test").json()
    wait_until(lambda: not sending.client.get(path).json()["enabled"], PATIENCE)
    assert "410" in sending.client.get(path).json()["disabled_reason"]
    for refused in (f"{path}/test", f"{path}/deliveries/{sent['id']}/redeliver"):
        response = sending.client.post(refused)
        assert (response.status_code, response.json()["code"]) == (409, "webhook_disabled")
    changed = sending.client.patch(path, json={"enabled": True, "url": f"{receiver.url}/hook"}).json()
    assert (changed["enabled"], changed["disabled_reason"]) == (True, None)
    assert sending.client.post(f"{path}/deliveries/{sent['id']}/redeliver").status_code == 202
    wait_for(sending, made["id"], "delivered")


def test_a_webhook_is_made_listed_changed_and_deleted(sending: Service, receiver: ScriptedService) -> None:
    made = created(sending, receiver, events=["job.failed", "job.failed"])
    path = f"/webhooks/{made['id']}"
    assert made["events"] == ["job.failed"]
    second = created(sending, receiver)
    first_page = sending.client.get("/webhooks", params={"limit": 1}).json()
    next_page = sending.client.get("/webhooks", params={"cursor": first_page["next_cursor"]})
    assert [first_page["data"][0]["id"], next_page.json()["data"][0]["id"]] == [second["id"], made["id"]]
    assert "secret" not in next_page.json()["data"][0]
    assert made["secret"] not in next_page.text
    changed = sending.client.patch(path, json={"name": "new", "events": []}).json()
    assert (changed["name"], changed["events"], changed["url"]) == ("new", [], made["url"])
    assert sending.client.patch(path, json={"enabled": False}).json()["disabled_reason"] == "its owner disabled it"
    assert sending.client.delete(path).status_code == 204
    assert sending.client.get(path).json()["code"] == "not_found"


def test_another_owners_webhook_is_not_there(sending: Service, receiver: ScriptedService) -> None:
    made = created(sending, receiver)
    path = f"/webhooks/{made['id']}"
    delivery = sending.client.post(f"{path}/test").json()["id"]
    with sending.new_owner("bob") as bob:
        answers = [
            bob.get(path), bob.patch(path, json={"name": "x"}), bob.delete(path), bob.post(f"{path}/rotate"),
            bob.post(f"{path}/test"), bob.get(f"{path}/deliveries"),
            bob.post(f"{path}/deliveries/{delivery}/redeliver"),
        ]
        assert bob.get("/webhooks").json()["data"] == []
        own = bob.post("/webhooks", json={"url": f"{receiver.url}/hook"}).json()["id"]
        answers.append(bob.post(f"/webhooks/{own}/deliveries/{delivery}/redeliver"))
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 8


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://127.0.0.1/", "https://0x7f.1/", "https://2130706433/", "https://localhost:8443/",
        "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://10.0.0.1/", "https://169.254.169.254/latest",
        "https://100.64.0.1/", "https://user:word@example.com/", "https://example.com/#a",  # pragma: allowlist secret
    ],
)
def test_a_url_that_leads_inside_is_refused(service: Service, url: str) -> None:
    refused = service.client.post("/webhooks", json={"url": url})
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["param"]) == (422, "webhook_url_refused", "/url")
    made = service.client.post("/webhooks", json={"url": "https://example.com/"}).json()
    changed = service.client.patch(f"/webhooks/{made['id']}", json={"url": url})
    assert changed.json()["code"] == "webhook_url_refused"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"url": "example.com"}, {"url": "https://a b/"}, {"url": "https://example.com/", "events": ["job.nothing"]},
        {"url": "https://example.com/", "secret": "whsec_mine"},  # pragma: allowlist secret
        {"url": "https://example.com/", "name": ""},
        {"url": "https://example.com/" + "a" * 3000},
    ],
)
def test_a_webhook_that_is_not_described_well_is_refused(service: Service, body: dict[str, Any]) -> None:
    response = service.client.post("/webhooks", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_an_owner_has_at_most_ten(service: Service) -> None:
    def make() -> httpx.Response:
        return service.client.post("/webhooks", json={"url": "https://example.com/"})

    assert {make().status_code for _ in range(10)} == {201}
    assert (make().status_code, make().json()["code"]) == (409, "too_many_webhooks")
