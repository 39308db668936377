"""Quotas and request rates, as clients meet them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.files import idx
from tests.fixtures.service import Service, running_service


@pytest.fixture
def limited(sqlite_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    """An API with small quotas."""
    with running_service(
        sqlite_url, broker_url, tmp_path, max_stored_bytes=1000, max_queued_jobs=1, max_running_jobs=1
    ) as running:
        yield running


def client_of(service: Service, **limits: int) -> httpx.Client:
    """A client with a key of the same owner that has limits of its own."""
    made = service.client.post("/keys", json={"name": "own", "scopes": ["read", "submit"], "limits": limits}).json()
    assert {name: made["limits"][name] for name in limits} == limits
    return service.client_with(made["secret"])


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def pieces(num: int) -> Iterator[bytes]:
    yield idx([1])
    for _ in range(num):
        yield bytes(1000)


def test_who_is_beyond_the_quota_stores_no_more(limited: Service) -> None:
    assert limited.upload(idx([500])).status_code == 201
    # Refused by its declared length; then without one, as soon as it is too long.
    for content in (idx([600]), pieces(5)):
        refused = limited.client.post("/artifacts", params={"kind": "data"}, content=content)
        assert refusal(refused) == (403, "storage_quota_exceeded")
    with client_of(limited, stored_bytes=0) as client:
        assert client.post("/artifacts", params={"kind": "data"}, content=idx([600])).status_code == 201
    spec = limited.spec
    with pytest.raises(AssertionError, match="storage_quota_exceeded"):
        spec()


def test_who_has_as_many_jobs_queued_as_may_submits_none(limited: Service) -> None:
    spec = limited.spec()
    assert limited.client.post("/jobs", json=spec).status_code == 202
    refused = limited.client.post("/jobs", json=spec, headers={"Idempotency-Key": "again"})
    assert refusal(refused) == (429, "too_many_queued_jobs")
    assert refused.headers["retry-after"] == "30"
    assert "1 jobs queued, and 1 may" in refused.json()["detail"]
    limited.claim()
    # A refusal is not remembered as the answer.
    assert limited.client.post("/jobs", json=spec, headers={"Idempotency-Key": "again"}).status_code == 202
    with client_of(limited, queued_jobs=2) as client:
        assert client.post("/jobs", json=spec).status_code == 202
        assert refusal(client.post("/jobs", json=spec)) == (429, "too_many_queued_jobs")


def test_a_job_tells_that_its_owner_has_enough_running(limited: Service) -> None:
    spec = limited.spec()
    limited.client.post("/jobs", json=spec)
    limited.claim()
    waiting = limited.client.post("/jobs", json=spec).json()
    assert "waits until one of the owner's 1 running jobs ends" in waiting["queue"]["reason"]
    assert limited.client.get(f"/jobs/{waiting['id']}").json()["queue"] == waiting["queue"]
    with client_of(limited, running_jobs=2, queued_jobs=0) as client:
        assert client.post("/jobs", json=spec).json()["queue"]["reason"].endswith("waits for a free cpu worker")
