import pytest

from stillhouse.contract.resources import CreatedApiKey
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


def test_only_an_administrator_makes_keys_for_others(service: Service) -> None:
    with service.new_owner("bob") as bob:
        own = bob.post("/keys", json={"name": "own"})
        assert own.status_code == 201
        assert bob.post("/keys", json={"name": "own", "owner": "bob"}).status_code == 201
        refused = bob.post("/keys", json={"name": "x", "owner": "default"})
        assert (refused.status_code, refused.json()["param"]) == (422, "/owner")
        assert [key["name"] for key in bob.get("/keys").json()["data"]] == ["own", "own", "test"]
    assert [key["name"] for key in service.client.get("/keys").json()["data"]] == ["bootstrap"]


def test_another_owners_key_cannot_be_revoked(service: Service) -> None:
    [bootstrap] = service.client.get("/keys").json()["data"]
    with service.new_owner("bob") as bob:
        assert bob.delete(f"/keys/{bootstrap['id']}").json()["code"] == "not_found"
    assert service.client.get("/keys").status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"name": ""}', b'{"name": "a", "admin": true}', b'{"name": 3}',
                b'{"name": "a", "owner": "../x"}', b'{"name": "' + b"a" * 5000 + b'"}'],
)
def test_a_key_that_is_not_described_well_is_refused(service: Service, content: bytes) -> None:
    response = service.client.post("/keys", content=content)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
