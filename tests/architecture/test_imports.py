"""Who may import whom, and what a plain import costs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import app.main", {"torch", "worker", "numpy", "pyarrow", "PIL", "boto3"}),
        ("import stillhouse", {"torch", "app", "worker", "httpx", "typer"}),
        ("from stillhouse import Client", {"torch", "app", "worker", "numpy"}),
        ("import stillhouse.cli", {"torch", "app", "worker", "numpy"}),
        ("from stillhouse import load", {"app", "worker"}),
        ("import worker.supervisor, worker.tasks", {"torch", "boto3"}),
        (
            "import worker.engine.pipeline",
            {"app", "celery", "sqlalchemy", "fastapi", "redis", "onnxruntime", "pyarrow", "datasets"},
        ),
    ],
)
def test_an_import_loads_nothing_it_should_not(statement: str, never: set[str]) -> None:
    assert loaded_by(statement) & never == set()


def test_every_import_contract_holds() -> None:
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*lint, "--no-cache"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
