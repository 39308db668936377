import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.keys.models import ApiKeyRow
from app.kit.clock import now
from stillhouse.contract.resources import SCOPES, CreatedApiKey
from tests.fixtures.service import ADMIN_KEY, Service


def test_a_key_is_made_used_listed_and_revoked(either_service: Service) -> None:
    response = either_service.client.post("/keys", json={"name": "laptop"})
    made = CreatedApiKey.model_validate(response.json())
    assert response.status_code == 201
    assert response.headers["location"] == f"/keys/{made.id}"
    assert response.headers["cache-control"] == "no-store"
    assert made.secret.startswith(made.prefix)
    with either_service.client_with(made.secret) as client:
        assert client.get("/jobs").status_code == 200
    listed = either_service.client.get("/keys")
    assert [key["name"] for key in listed.json()["data"]] == ["laptop", "bootstrap"]
    assert made.secret not in listed.text
    assert ADMIN_KEY not in listed.text
    for _ in range(2):
        assert either_service.client.delete(f"/keys/{made.id}").status_code == 204
    revoked = either_service.client.get("/keys").json()["data"][0]
    assert revoked["revoked_at"] is not None
    assert revoked["last_used_at"] is not None


def test_only_an_administrator_makes_keys(service: Service) -> None:
    with service.new_owner("bob") as bob:
        refused = bob.post("/keys", json={"name": "own"})
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        assert bob.get("/keys", params={"owner": "default"}).json()["code"] == "missing_scope"
        assert [key["name"] for key in bob.get("/keys").json()["data"]] == ["test"]
    assert [key["name"] for key in service.client.get("/keys").json()["data"]] == ["bootstrap"]
    [listed] = service.client.get("/keys", params={"owner": "bob"}).json()["data"]
    assert (listed["owner"], listed["scopes"]) == ("bob", ["read", "submit"])
    assert service.client.delete(f"/keys/{listed['id']}").status_code == 204


def test_another_key_can_neither_be_revoked_nor_rotated(service: Service) -> None:
    [bootstrap] = service.client.get("/keys").json()["data"]
    with service.new_owner("bob") as bob:
        assert bob.delete(f"/keys/{bootstrap['id']}").json()["code"] == "missing_scope"
        assert bob.post(f"/keys/{bootstrap['id']}/rotate").json()["code"] == "missing_scope"
        # Nothing tells whether there is such a key.
        assert bob.delete("/keys/key_0").json()["code"] == "missing_scope"
    assert service.client.get("/keys").status_code == 200
    assert service.client.post("/keys/key_0/rotate").json()["code"] == "not_found"


def test_a_key_rotates_and_revokes_itself(either_service: Service) -> None:
    made = either_service.client.post("/keys", json={"name": "own", "scopes": ["read"]}).json()
    with either_service.client_with(made["secret"]) as client:
        response = client.post(f"/keys/{made['id']}/rotate", json={"overlap_seconds": 600})
        rotated = CreatedApiKey.model_validate(response.json())
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
        assert (rotated.id, rotated.scopes) == (made["id"], ["read"])
        assert rotated.former_secret_ends_at is not None
        assert rotated.former_secret_ends_at - datetime.now(UTC) > timedelta(seconds=540)
        assert client.get("/jobs").status_code == 200
    with either_service.client_with(rotated.secret) as client:
        assert client.post(f"/keys/{made['id']}/rotate", json={"overlap_seconds": -1}).json()["code"] == (
            "invalid_request"
        )
        assert client.delete(f"/keys/{made['id']}").status_code == 204
        assert client.get("/jobs").status_code == 401
    refused = either_service.client.post(f"/keys/{made['id']}/rotate")
    assert (refused.status_code, refused.json()["code"]) == (409, "key_ended")


def test_a_key_says_when_it_ends_and_ends_then(service: Service) -> None:
    past = service.client.post("/keys", json={"name": "a", "expires_at": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["param"]) == (422, "/expires_at")
    ends = datetime.now(UTC) + timedelta(days=1)
    made = service.client.post("/keys", json={"name": "a", "expires_at": ends.isoformat()}).json()
    assert datetime.fromisoformat(made["expires_at"]) == ends
    with service.client_with(made["secret"]) as client:
        assert client.get("/jobs").status_code == 200
        with service.parts.db.writing() as session:
            session.execute(update(ApiKeyRow).where(ApiKeyRow.id == made["id"]).values(expires_at=now(-1)))
        refused = client.get("/jobs")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert "expired" in refused.json()["detail"]


def operations(service: Service) -> Iterator[tuple[str, str, list[str]]]:
    """Method, path and scopes of everything that takes a key, as OpenAPI tells it."""
    for path, by_method in service.client.get("/openapi.json").json()["paths"].items():
        for method, operation in by_method.items():
            if "security" in operation:
                [[scopes]] = [each.values() for each in operation["security"]]
                yield method.upper(), path, scopes


@pytest.mark.parametrize("scope", SCOPES)
def test_every_endpoint_asks_for_the_scope_that_it_tells(service: Service, scope: str) -> None:
    made = service.client.post("/keys", json={"name": scope, "scopes": [scope]}).json()
    asked = list(operations(service))
    assert {word for _, _, scopes in asked for word in scopes} == set(SCOPES)
    with service.client_with(made["secret"]) as client:
        for method, template, scopes in asked:
            path = re.sub(r"{\w+}", "x", template)
            response = client.request(method, path, params={"kind": "data"}, content=b"{}")
            is_refused = scopes not in ([], [scope])
            # Of a key that is not its own, only an administrator's may be rotated or revoked.
            is_refused |= not scopes and scope != "admin" and "{" in template
            assert (response.status_code == 403) == is_refused, (method, path, response.text)
            if is_refused and method != "HEAD":
                assert response.json()["code"] == "missing_scope"
                assert f"the scope {scopes[0] if scopes else 'admin'};" in response.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"name": ""}', b'{"name": "a", "admin": true}', b'{"name": 3}',
                b'{"name": "a", "owner": "../x"}', b'{"name": "a", "scopes": []}', b'{"name": "a", "scopes": ["all"]}',
                b'{"name": "a", "expires_at": "2050-01-01T00:00:00"}', b'{"name": "a", "limits": {"queued_jobs": -1}}',
                b'{"name": "a", "limits": {"running": 1}}', b'{"name": "a", "limits": {"queued_jobs": "1"}}',
                b'{"name": "' + b"a" * 5000 + b'"}'],
)
def test_a_key_that_is_not_described_well_is_refused(service: Service, content: bytes) -> None:
    response = service.client.post("/keys", content=content)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
