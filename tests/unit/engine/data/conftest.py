from pathlib import Path

import pytest

from tests.fixtures.datasets import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """No files yet."""
    return Shelf(tmp_path)
