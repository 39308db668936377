"""A worker that cannot tell its numbers where it should says so and ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from tests.fixtures.fleet import ROOT


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another exporter listens."""
    server, thread = start_http_server(0, "127.0.0.1", CollectorRegistry())
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def start_and_end(folder: Path, url: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """A worker with a port for its numbers, which it does not get."""
    environment = os.environ | {
        "STILLHOUSE_DATABASE_URL": url, "STILLHOUSE_BROKER_URL": f"redis+socket://{folder}/nobody.sock",
        "STILLHOUSE_BLOB_URL": f"file:{folder}/blobs", "STILLHOUSE_SCRATCH_FOLDER": f"{folder}/scratch",
        "STILLHOUSE_CACHE_FOLDER": f"{folder}/cache", "STILLHOUSE_ENGINE": "tests.fixtures.noop_engine",
    } | more
    return subprocess.run(
        [sys.executable, "-m", "worker"], cwd=ROOT, env=environment, check=False, capture_output=True, text=True,
        timeout=60,
    )


def test_a_taken_port_ends_the_worker_with_a_sentence(tmp_path: Path, sqlite_url: str, taken_port: int) -> None:
    done = start_and_end(tmp_path, sqlite_url, STILLHOUSE_METRICS_PORT=str(taken_port))
    line = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, line["level"], line["logger"]) == (2, "critical", "worker")
    assert line["event"] == (
        f"This worker cannot tell its numbers on 127.0.0.1, port {taken_port}: Address already in use. "
        "Give it a port of its own by STILLHOUSE_METRICS_PORT, or none."
    )
    assert "exception" not in line


def test_a_host_that_is_not_this_machine_ends_it_too(tmp_path: Path, sqlite_url: str) -> None:
    # 192.0.2.0/24 is kept for documentation: RFC 5737.
    done = start_and_end(
        tmp_path, sqlite_url, STILLHOUSE_METRICS_PORT="0", STILLHOUSE_METRICS_HOST="192.0.2.1",
    )
    assert done.returncode == 2
    assert "on 192.0.2.1, port 0: Cannot assign requested address" in json.loads(done.stderr.splitlines()[-1])["event"]
