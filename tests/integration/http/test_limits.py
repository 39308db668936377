"""Quotas and request rates, as clients meet them."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.http.rates import Rates
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


def left(response: httpx.Response) -> int:
    found = re.fullmatch(r'"minute";r=(\d+);t=\d+', response.headers["ratelimit"])
    assert found is not None
    return int(found[1])


def test_a_key_that_asks_too_often_is_told_when_to_come_back(service: Service) -> None:
    assert "ratelimit" not in service.client.get("/jobs").headers
    with client_of(service, requests_per_minute=3) as client:
        # Failures count as well, and tell.
        answers = [client.get("/jobs"), client.get("/jobs/nothing"), client.post("/keys", json={"name": "x"})]
        assert [(answer.status_code, left(answer)) for answer in answers] == [(200, 2), (404, 1), (403, 0)]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"minute";q=3;w=60'}
        refused = client.get("/jobs")
        assert refusal(refused) == (429, "rate_limited")
        assert left(refused) == 0
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.json()["retryable"]
    # Another key of the same owner has its own.
    with client_of(service, requests_per_minute=1) as client:
        assert client.get("/jobs").status_code == 200


def test_processes_count_together(broker_url: str) -> None:
    counted = [Rates(broker_url).count("key_together", 2) for _ in range(3)]
    assert [rate.is_exceeded for rate in counted] == [False, False, True]
    assert [rate.num_left for rate in counted] == [1, 0, 0]


def test_without_the_broker_each_process_counts_and_refuses_nobody_for_that(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"redis+socket://{tmp_path}/nowhere.sock"
    with running_service(sqlite_url, nowhere, tmp_path, max_requests_per_minute=2) as service:
        answers = [service.client.get("/jobs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert left(answers[0]) == 1
    # Asked once, not with every request.
    assert sum("without the broker" in line for line in caplog.messages) == 1
