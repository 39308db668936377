"""`stillhouse doctor` against a real service, and what it asks of keys."""

import json

import pytest
from typer.testing import CliRunner

from stillhouse.cli.commands import app
from stillhouse.client import Client
from tests.fixtures.files import idx
from tests.fixtures.service import ADMIN_KEY, Service


def test_a_sound_service_is_found_well_and_left_as_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_API_KEY", ADMIN_KEY)
    result = CliRunner().invoke(app, ["doctor", "--json", "--url", f"http://127.0.0.1:{service.port}"])
    assert result.exit_code == 0, result.output
    findings = json.loads(result.stdout)["findings"]
    assert {finding["check"]: finding["state"] for finding in findings} == dict.fromkeys(
        ["address", "service", "version", "ready", "key", "limits", "round trip"], "ok"
    )
    assert "stored, fetched, compared and deleted" in findings[-1]["message"]
    assert service.client.get("/artifacts").json()["data"] == []
    assert ADMIN_KEY not in result.output


def test_a_key_tells_its_limits_and_what_is_used_of_them(service: Service) -> None:
    wanted = {"name": "own", "scopes": ["admin"], "limits": {"stored_bytes": 1000, "queued_jobs": 0}}
    made = service.client.post("/keys", json=wanted).json()
    content = idx([20])
    service.uploaded(content)
    with Client(f"http://127.0.0.1:{service.port}", made["secret"]) as client:
        held = client.current_key()
    assert (held.id, held.scopes, held.limits.queued_jobs) == (made["id"], ["admin"], 0)
    assert held.in_force.model_dump(exclude_none=True) == {"stored_bytes": 1000}
    assert (held.used.stored_bytes, held.used.queued_jobs, held.used.running_jobs) == (len(content), 0, 0)
    job_id = service.submitted()
    assert service.client.get("/keys/current").json()["used"]["queued_jobs"] == 1
    assert service.claim().job_id == job_id
    used = service.client.get("/keys/current").json()["used"]
    assert (used["queued_jobs"], used["running_jobs"]) == (0, 1)
