"""Make `.venv` and install from the lock, or say plainly what is missing. Run by make; needs only Python.

Kept to what Python 3.6 can read, so that an old one can say that it is too old.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
ROOM_GB = 8.0
LEAST_ROOM_GB = 2.5


def give_up(message: str) -> None:
    """End with a message for people."""
    sys.exit(f"stillhouse: {message}")


def check_python() -> None:
    """Refuse an interpreter that cannot run this, or cannot make a virtual environment."""
    if sys.version_info < OLDEST:
        have = ".".join(map(str, sys.version_info[:2]))
        give_up(
            f"this needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is {have}. "
            "Name another one: make PYTHON=/path/to/python3.11 ..."
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            give_up(
                f"this Python has no `{module}` module, so it cannot make a virtual environment. "
                "On Debian and Ubuntu: apt install python3-venv"
            )


def check_room() -> None:
    """Refuse a disk on which the installation cannot end well; warn where only the small torch build fits."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < LEAST_ROOM_GB:
        give_up(f"only {free:.1f} GB are free on the disk of {ROOT}; the smallest installation takes {LEAST_ROOM_GB}.")
    if free < ROOM_GB:
        print(
            f"stillhouse: only {free:.1f} GB are free; torch with CUDA takes about {ROOM_GB:.0f}. "
            "README.md tells how to get the small CPU build."
        )


def fingerprint(extra: str) -> str:
    """What the installation depends on: another fingerprint means installing again."""
    digest = hashlib.sha256((extra + sys.version).encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def run(*command: str) -> None:
    """Run a command in the checkout, or say that it failed."""
    if subprocess.call(command, cwd=str(ROOT)) != 0:
        give_up(
            "installing failed; the lines above say why. The usual causes: no network, no room on the disk, a "
            "download cut off. The same command again goes on where it stopped."
        )


def main(extra: str) -> None:
    """Install an extra of pyproject.toml, unless it is there already."""
    check_python()
    stamp = VENV / f"installed-{extra}"
    wanted = fingerprint(extra)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    check_room()
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", str(VENV))
    print("stillhouse: installing into .venv (takes long only the first time)", flush=True)
    pip = (str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check")
    run(*pip, "-c", "requirements.lock", "-e", f".[{extra}]")
    stamp.write_text(wanted)


main(sys.argv[1])
