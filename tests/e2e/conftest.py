"""The whole service as processes, on the back ends of this pass."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillhouse import local
from stillhouse.local import LocalService
from tests.conftest import is_production
from tests.fixtures.production import production_backends
from tests.fixtures.small_mnist import MNIST, write_small_mnist

ROOT = Path(__file__).parents[2]
NOOP = {"STILLHOUSE_ENGINE": "tests.fixtures.noop_engine"}
Command = Callable[..., list[str]]
Running = Callable[..., AbstractContextManager[LocalService]]


def command(*arguments: str) -> list[str]:
    """`stillhouse ...`, as the console script runs it."""
    return [sys.executable, "-c", "from stillhouse.cli import main; main()", *arguments]


def environment_of(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "STILLHOUSE_HOME": str(home), **more}


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 2,000 training and 500 test images."""
    return write_small_mnist(tmp_path_factory.mktemp("mnist"), num_train=2000, num_test=500)


@pytest.fixture(scope="session")
def teacher() -> Path:
    """The teacher of the MNIST example."""
    return MNIST / "teacher.safetensors"


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Running:
    """Starts a whole service, as `stillhouse.local.running` does, on empty back ends of this pass."""
    if not is_production(request.config):
        return local.running
    postgres, s3 = request.getfixturevalue("postgres"), request.getfixturevalue("s3")

    @contextmanager
    def on_production(
        home: Path, *, environment: Mapping[str, str] | None = None, **options: Any  # noqa: ANN401 - as they are
    ) -> Iterator[LocalService]:
        with (
            production_backends(postgres, s3) as backends,
            local.running(home, environment={**backends, **(environment or {})}, **options) as service,
        ):
            yield service
        assert not (home / "stillhouse.db").exists()
        assert not list((home / "blobs").iterdir()), "all of it was elsewhere"

    return on_production


@pytest.fixture(scope="module")
def counting(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A whole service whose jobs only count."""
    with running(tmp_path_factory.mktemp("home"), environment=NOOP) as service:
        yield service


@pytest.fixture
def stillhouse(counting: LocalService, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command against the counting service, in a folder of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment_of(counting.home), capture_output=True, text=True,
            check=False, timeout=120,
        )

    return run
