"""Start and stop the local service."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from stillhouse.home import home_folder
from stillhouse.local import preconditions
from stillhouse.local.processes import Processes, wait_until

DEFAULT_PORT = 8765
# Seconds. A draining worker writes a checkpoint; the others hold nothing that a restart does not find again.
WORKER_STOP_SECONDS = 60.0
STOP_SECONDS = 10.0
START_SECONDS = 90.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class LocalService:
    """A running local service."""

    url: str
    key: str
    home: Path
    processes: Processes

    def check(self) -> None:
        """Raise ComponentDiedError if a part of it has died."""
        self.processes.check()

    def watch(self, should_stop: Callable[[], bool]) -> None:
        """Return when asked to stop; raise ComponentDiedError when a part dies."""
        while not should_stop():
            self.check()
            time.sleep(0.2)


@contextmanager
def running(
    home: str | Path | None = None, *, port: int = 0, workers: int = 1,
    environment: Mapping[str, str] | None = None, tell: Tell = lambda _: None,
) -> Iterator[LocalService]:
    """The whole service as child processes, ready to take jobs; stopped at the end, also if this process is killed.

    Port 0 takes any free port. LocalServiceError says what is missing. `environment` adds settings (`STILLHOUSE_...`);
    `tell` hears what is being done, in a few words.
    """
    checkout = preconditions.find_checkout()
    preconditions.check_packages()
    program = preconditions.broker_program()
    folder = preconditions.make_home(home_folder(home))
    preconditions.check_room(folder)
    with ExitStack() as stack:
        lock = stack.enter_context(preconditions.take_home(folder))
        number = preconditions.choose_port(port)
        key = preconditions.mint_token(folder)
        broker_socket = stack.enter_context(_socket_path(folder))
        settings = _settings(folder, number, broker_socket) | dict(environment or {})
        processes = Processes(folder / "logs", folder=checkout, lock=lock, stop_seconds=WORKER_STOP_SECONDS)
        stack.enter_context(_stopped_at_the_end(processes, tell))
        url = f"http://{preconditions.HOST}:{number}"
        _start(processes, settings, program, broker_socket, url, workers, tell)
        stack.enter_context(_address_file(folder, url))
        yield LocalService(url, key, folder, processes)


def _start(
    processes: Processes, settings: Mapping[str, str], program: str, broker_socket: Path, url: str, workers: int,
    tell: Tell,
) -> None:
    """Start each component, in the order in which they need each other."""
    environment = _environment(settings, processes.folder)
    python = [sys.executable, "-m"]
    tell("starting the queue")
    processes.start("broker", [program, *_broker_options(broker_socket)], environment, stop_seconds=STOP_SECONDS)
    tell("bringing the database up to date")
    processes.run("migration", [*python, "app", "migrate"], environment, seconds=START_SECONDS)
    tell("starting the API and the worker")
    wait_until(broker_socket.exists, processes, seconds=STOP_SECONDS, waiting_for="starting the broker")
    processes.start("api", [*python, "app"], environment, stop_seconds=STOP_SECONDS)
    logs: list[Path] = []
    own = [_own_scratch(environment, number, workers) for number in range(1, workers + 1)]
    for number, mine in enumerate(own, start=1):
        name = "worker" if workers == 1 else f"worker {number}"
        worker = processes.start(name, [*python, "worker"], mine, stop_seconds=WORKER_STOP_SECONDS)
        logs.append(worker.log)
    wait_until(lambda: _answers(f"{url}/readyz"), processes, seconds=START_SECONDS, waiting_for="starting the API")
    wait_until(lambda: all(map(_is_ready, logs)), processes, seconds=START_SECONDS, waiting_for="starting the worker")


@contextmanager
def _stopped_at_the_end(processes: Processes, tell: Tell) -> Iterator[None]:
    """Stop in order; a second Ctrl-C while that lasts stops by force."""
    try:
        yield
    finally:
        tell("stopping the service; a job that runs writes a checkpoint first")
        try:
            processes.stop()
        except BaseException:  # even Ctrl-C and a signal's exit must leave nothing running
            processes.kill()
            raise


@contextmanager
def _socket_path(home: Path) -> Iterator[Path]:
    """Where the broker listens: in the home folder, or in a short temporary one where its path would be too long."""
    inside = home / "broker.sock"
    if len(os.fsencode(inside)) <= preconditions.LONGEST_SOCKET_PATH:
        inside.unlink(missing_ok=True)
        yield inside
        inside.unlink(missing_ok=True)
        return
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-"))
    try:
        yield folder / "broker.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _address_file(home: Path, url: str) -> Iterator[None]:
    """Lets the CLI find the service for as long as it runs."""
    path = home / "url"
    path.write_text(url)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _settings(home: Path, port: int, broker_socket: Path) -> dict[str, str]:
    return {
        "STILLHOUSE_DATABASE_URL": f"sqlite:///{home / 'stillhouse.db'}",
        "STILLHOUSE_BROKER_URL": f"redis+socket://{broker_socket}",
        "STILLHOUSE_BLOB_URL": f"file:{home / 'blobs'}",
        "STILLHOUSE_HOST": preconditions.HOST,
        "STILLHOUSE_PORT": str(port),
        # Receivers are most likely on this machine, too, and its owner is the only user.
        "STILLHOUSE_WEBHOOK_ALLOW_PRIVATE": "true",
        "STILLHOUSE_BOOTSTRAP_KEY_FILE": str(home / "token"),
        "STILLHOUSE_SCRATCH_FOLDER": str(home / "scratch"),
        "STILLHOUSE_CACHE_FOLDER": str(home / "cache"),
    }


def _environment(settings: Mapping[str, str], checkout: Path) -> dict[str, str]:
    """The environment of every component: the caller's, with what makes the service local."""
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    kept = {name: value for name, value in os.environ.items() if name != "STILLHOUSE_BOOTSTRAP_KEY"}
    # Whoever runs it on one machine reads its logs with the naked eye.
    readable = {"STILLHOUSE_LOG_FORMAT": "console"}
    return {**readable, **kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **settings}


def _own_scratch(environment: Mapping[str, str], number: int, workers: int) -> dict[str, str]:
    """Workers of one machine share the cache, not the scratch folder."""
    if workers == 1:
        return dict(environment)
    return {**environment, "STILLHOUSE_SCRATCH_FOLDER": f"{environment['STILLHOUSE_SCRATCH_FOLDER']}/{number}"}


def _broker_options(broker_socket: Path) -> list[str]:
    return [
        "--port", "0", "--unixsocket", str(broker_socket), "--unixsocketperm", "700", "--save", "",
        "--appendonly", "no", "--dir", str(broker_socket.parent), "--daemonize", "no",
    ]


def _is_ready(log: Path) -> bool:
    """Whether a worker says that it listens: Celery's own last word of its start."""
    return b" ready." in log.read_bytes()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
