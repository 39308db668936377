from collections.abc import Iterator

import pytest

from stillhouse import Client
from tests.fixtures.scripted_service import ScriptedService


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with ScriptedService().serving() as service:
        yield service


@pytest.fixture
def client(service: ScriptedService) -> Iterator[Client]:
    with Client(service.url, "sk_secret") as client:
        yield client
