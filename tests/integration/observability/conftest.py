from collections.abc import Iterator

import pytest

from tests.fixtures.house import House, observed_house


@pytest.fixture(scope="package")
def house() -> Iterator[House]:
    """What one API and one worker logged and counted."""
    with observed_house() as seen:
        yield seen
