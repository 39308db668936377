import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.fixtures.service import ADMIN_KEY, bearer
from tests.fixtures.waiting import wait_until

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def environment(database_url: str, broker_url: str, folder: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    return {
        **inherited, "STILLHOUSE_DATABASE_URL": database_url, "STILLHOUSE_BROKER_URL": broker_url,
        "STILLHOUSE_BLOB_URL": f"file:{folder / 'blobs'}", "STILLHOUSE_MIN_FREE_BYTES": "0", **more,
    }


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=60)


@contextmanager
def serving(env: dict[str, str], port: int) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    env, command = {**env, "STILLHOUSE_PORT": str(port)}, [sys.executable, "-m", "app"]
    with (
        subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(ADMIN_KEY), trust_env=False) as client,
    ):
        try:
            wait_until(lambda: process.poll() is not None or answers(client), 60)
            yield process, client
        finally:
            process.kill()


def answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/healthz").status_code == 200
    return False


def test_a_new_database_is_migrated_and_served(tmp_path: Path, broker_url: str) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(ADMIN_KEY + "\n")
    env = environment(
        f"sqlite:///{tmp_path}/new/x.db", broker_url, tmp_path, STILLHOUSE_BOOTSTRAP_KEY_FILE=str(key_file)
    )
    unready = run(env=env)
    assert unready.returncode == 2
    assert "python -m app migrate" in unready.stderr
    for _ in range(2):
        assert run("migrate", env=env).returncode == 0
    with serving(env, free_port()) as (_, client):
        assert client.get("/readyz").status_code == 200
        assert client.get("/jobs").json()["data"] == []


def test_being_told_to_stop_ends_it_soon_in_spite_of_watchers(
    sqlite_url: str, broker_url: str, tmp_path: Path
) -> None:
    env = environment(sqlite_url, broker_url, tmp_path, STILLHOUSE_BOOTSTRAP_KEY=ADMIN_KEY)
    with serving(env, free_port()) as (process, client):
        job_id = submit(client)
        with client.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as response:
            pieces = response.iter_bytes()
            next(pieces)
            process.send_signal(signal.SIGTERM)
            assert b"event: end" not in b"".join(pieces)
        process.wait(5)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def submit(client: httpx.Client) -> str:
    content = b"\0\0\x08\x02\0\0\0\2\0\0\0\2abcd"
    artifact_id = client.post("/artifacts", params={"kind": "data"}, content=content).json()["id"]
    mlp = {"kind": "mlp"}
    spec = {
        "teacher": {"kind": "checkpoint", "artifact": upload_teacher(client), "architecture": mlp}, "student": mlp,
        "data": {"kind": "idx", "train": {"inputs": artifact_id}},
    }
    found: str = client.post("/jobs", json=spec).json()["id"]
    return found


def upload_teacher(client: httpx.Client) -> str:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    found: str = client.post("/artifacts", params={"kind": "teacher"}, content=content).json()["id"]
    return found


def test_beyond_loopback_it_refuses_to_start_without_a_key(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    env = environment(sqlite_url, broker_url, tmp_path, STILLHOUSE_HOST="0.0.0.0")  # noqa: S104 - the point of it
    refused = run(env=env)
    assert refused.returncode == 2
    assert "STILLHOUSE_BOOTSTRAP_KEY" in refused.stderr
    with serving({**env, "STILLHOUSE_BOOTSTRAP_KEY": ADMIN_KEY}, free_port()) as (_, client):
        assert client.get("/jobs").status_code == 200
    # The key is in the database now.
    with serving(env, free_port()) as (_, client):
        assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    ("more", "arguments", "told"),
    [
        ({"STILLHOUSE_BOOTSTRAP_KEY": "short"}, [], "fewer than 20 characters"),
        ({"STILLHOUSE_BOOTSTRAP_KEY_FILE": "/nowhere/key"}, [], "/nowhere/key"),
        ({}, ["serve"], "usage"),
    ],
)
def test_what_cannot_be_done_is_told_plainly(
    sqlite_url: str, broker_url: str, tmp_path: Path, more: dict[str, str], arguments: list[str], told: str
) -> None:
    refused = run(*arguments, env=environment(sqlite_url, broker_url, tmp_path, **more))
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
