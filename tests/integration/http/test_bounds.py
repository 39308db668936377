"""Clients that send too much, too slowly, or do not read."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fixtures.service import ADMIN_KEY, Service, running_service
from tests.fixtures.waiting import wait_until

SSE = {"Accept": "text/event-stream"}
HEAD = f"Host: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n".encode()


@pytest.fixture
def strict(sqlite_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    """An API without patience."""
    with running_service(
        sqlite_url, broker_url, tmp_path, client_seconds=1.0, max_header_bytes=8192, max_streams=3,
        max_streams_per_key=2, max_spec_bytes=10_000, max_runtime_seconds=3600,
    ) as running:
        yield running


def heard(service: Service, *sent: bytes) -> bytes:
    """All that is answered until the connection is closed by the other side."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        for piece in sent:
            connection.sendall(piece)
        answer = bytearray()
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return bytes(answer)


@pytest.mark.parametrize("sent", [b"", b"GET /jobs HTTP/1.1\r\n", b"GET /jobs HTTP/1.1\r\nHost: local"])
def test_headers_that_do_not_come_end_the_connection(strict: Service, sent: bytes) -> None:
    assert heard(strict, sent) == b""


@pytest.mark.parametrize(
    "endless", [b"GET /jobs HTTP/1.1\r\nX: ", b"GET /", b"GET /jobs HTTP/1.1\r\n" + b"A: b\r\n" * 10]
)
def test_headers_without_end_are_refused(strict: Service, endless: bytes) -> None:
    assert heard(strict, endless, b"a" * 10_000).startswith(b"HTTP/1.1 431 ")


def test_headers_of_a_usual_size_are_not(strict: Service) -> None:
    assert strict.client.get("/jobs", headers={"X-Long": "a" * 7000}).status_code == 200


def test_trailers_without_end_are_not_gathered(strict: Service) -> None:
    request = b"POST /jobs HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    assert b"HTTP/1.1 200" not in heard(strict, request, b"X: " + b"a" * 20_000)


def test_a_body_that_stops_is_not_waited_for(strict: Service) -> None:
    def answer_at(path: str) -> bytes:
        return heard(strict, f"POST {path} HTTP/1.1\r\n".encode() + HEAD + b"Content-Length: 1000\r\n\r\n{")

    with ThreadPoolExecutor() as threads:  # each of them waits for seconds
        for answer in threads.map(answer_at, ["/jobs", "/plans", "/keys", "/artifacts?kind=data"]):
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"request_timeout" in answer


@pytest.mark.parametrize("path", ["/jobs", "/plans", "/keys"])
def test_a_body_without_a_length_is_bounded_too(strict: Service, path: str) -> None:
    response = strict.client.post(path, content=(b" " * 1000 for _ in range(100)))
    assert response.json()["code"] in {"spec_too_large", "invalid_request"}
    assert "larger than the" in response.json()["detail"]


def test_a_body_that_nobody_reads_does_not_keep_the_connection(strict: Service) -> None:
    request = b"GET /jobs HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000000\r\n\r\n"
    assert heard(strict, request, b"x" * 1000).startswith(b"HTTP/1.1 200 ")


def test_streams_are_counted_by_key_and_in_all(strict: Service) -> None:
    path = f"/jobs/{strict.submitted()}/events"
    made = strict.client.post("/keys", json={"name": "other"}).json()
    with strict.client_with(made["secret"]) as other:
        with ExitStack() as stack:
            for _ in range(2):
                opened = stack.enter_context(strict.client.stream("GET", path, headers=SSE))
                assert opened.status_code == 200
            refused = strict.client.get(path, headers=SSE)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert refused.headers["retry-after"] == "10"
            # A page takes no seat.
            assert strict.client.get(path).status_code == 200
            assert stack.enter_context(other.stream("GET", path, headers=SSE)).status_code == 200
            full = other.get(path, headers=SSE)
            assert (full.status_code, full.json()["code"]) == (503, "unavailable")
            assert strict.parts.seats.num_taken == 3
        wait_until(lambda: strict.parts.seats.num_taken == 0, 60)


@pytest.mark.parametrize("path", ["/jobs", "/plans"])
def test_no_job_may_ask_for_more_run_time_than_there_is(strict: Service, path: str) -> None:
    answer = strict.client.post(path, json=strict.spec(max_runtime=3600.5)).json()
    assert (answer["code"], answer["param"]) == ("invalid_spec", "/max_runtime")
    assert "longer than 3,600 s here" in answer["detail"]
    assert strict.client.post("/jobs", json=strict.spec(max_runtime=3600)).status_code == 202
