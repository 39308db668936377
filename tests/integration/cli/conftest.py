from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from stillhouse.cli.commands import app
from tests.fixtures.scripted_service import ScriptedService

Run = Callable[..., Result]


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with ScriptedService().serving() as service:
        yield service


@pytest.fixture
def run(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the scripted service."""
    monkeypatch.setenv("STILLHOUSE_URL", service.url)
    monkeypatch.setenv("STILLHOUSE_API_KEY", "sk_secret")

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return run
