"""Commands about webhooks, against a service that answers as the test says."""

import json
from typing import Any

from tests.fixtures.scripted_service import Reply, ScriptedService, as_json, problem
from tests.integration.cli.conftest import Run

HOOK = "hook_00000000000000000001"
DLV = "dlv_00000000000000000001"
SECRET = "whsec_abcd"  # noqa: S105 - a test's  # pragma: allowlist secret
AT = "2026-01-02T03:04:05Z"


def a_webhook(**fields: object) -> dict[str, Any]:
    return {"id": HOOK, "url": "https://a.example/", "events": [], "enabled": True, "created_at": AT, **fields}


def a_delivery(**fields: object) -> dict[str, Any]:
    return {
        "id": DLV, "webhook_id": HOOK, "message_id": "msg_1", "type": "job.new_kind", "status": "pending",
        "payload": {"type": "job.new_kind", "timestamp": AT, "data": {"id": "job_1"}}, "attempts": [],
        "created_at": AT, **fields,
    }


def test_create_prints_the_secret_alone(service: ScriptedService, run: Run) -> None:
    service.on("POST", "/webhooks", as_json(a_webhook(secret=SECRET), 201))
    result = run("webhooks", "create", "https://a.example/", "--event", "job.failed", "--name", "mine")
    assert (result.exit_code, result.stdout) == (0, f"{SECRET}\n")
    assert "not shown again" in result.stderr
    assert json.loads(service.seen[0].body) == {
        "url": "https://a.example/", "events": ["job.failed"], "name": "mine"
    }


def test_a_refused_url_is_told(service: ScriptedService, run: Run) -> None:
    service.on("POST", "/webhooks", problem(422, "webhook_url_refused", "10.0.0.1 is private."))
    result = run("webhooks", "create", "https://10.0.0.1/")
    assert result.exit_code == 3
    assert "10.0.0.1 is private" in result.stderr


def test_webhooks_are_listed_with_how_they_stand(service: ScriptedService, run: Run) -> None:
    data = [a_webhook(name="one"), a_webhook(enabled=False), a_webhook(failing_since=AT)]
    service.on("GET", "/webhooks", as_json({"data": data, "has_more": False, "next_cursor": None}))
    shown = run("webhooks", "list").stdout
    assert all(word in shown for word in ("enabled", "disabled", "failing", "all", "https://a.example/"))
    assert [one["id"] for one in json.loads(run("webhooks", "list", "--json").stdout)] == [HOOK] * 3


def test_a_webhook_is_changed_only_in_what_is_given(service: ScriptedService, run: Run) -> None:
    service.on("PATCH", f"/webhooks/{HOOK}", as_json(a_webhook()))
    assert run("webhooks", "update", HOOK, "--enable").exit_code == 0
    assert json.loads(service.seen[0].body) == {"enabled": True}


def test_rotate_test_redeliver_and_delete(service: ScriptedService, run: Run) -> None:
    service.on("POST", f"/webhooks/{HOOK}/rotate", as_json(a_webhook(secret=SECRET)))
    service.on("POST", f"/webhooks/{HOOK}/test", as_json(a_delivery(), 202))
    service.on("POST", f"/webhooks/{HOOK}/deliveries/{DLV}/redeliver", as_json(a_delivery(), 202))
    service.on("DELETE", f"/webhooks/{HOOK}", Reply(status=204))
    assert run("webhooks", "rotate", HOOK, "--overlap-hours", "0").stdout == f"{SECRET}\n"
    assert service.seen[0].query == {"overlap_hours": ["0"]}
    assert run("webhooks", "test", HOOK).stdout == f"{DLV}\n"
    assert run("webhooks", "redeliver", HOOK, DLV).stdout == f"{DLV}\n"
    assert run("webhooks", "delete", HOOK).exit_code == 0


def test_deliveries_tell_the_last_word(service: ScriptedService, run: Run) -> None:
    attempt = {"number": 1, "started_at": AT, "outcome": "refused", "status": 500, "detail": "answered with status 500"}
    page = {"data": [a_delivery(attempts=[attempt])], "has_more": False, "next_cursor": None}
    service.on("GET", f"/webhooks/{HOOK}/deliveries", as_json(page))
    shown = run("webhooks", "deliveries", HOOK, "--status", "pending").stdout
    assert all(word in shown for word in (DLV, "job.new_kind", "pending", "answered with status 500"))
    assert service.seen[0].query == {"status": ["pending"]}
