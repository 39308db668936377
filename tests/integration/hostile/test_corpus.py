"""Every hostile file is refused with a code, costs little memory, and has its row in docs/security.md."""

import re
from pathlib import Path
from typing import Any

import pytest

from stillhouse.contract.failures import every_failure
from tests.fixtures.hostile.corpus import CORPUS
from tests.fixtures.hostile.results import tried

ROOT = Path(__file__).parents[3]
MOST_MIB = 96
NAMES = [hostile.name for hostile in CORPUS]

# What files do to those who read them has nothing to do with where they are kept.
pytestmark = [pytest.mark.timeout(600), pytest.mark.embedded]


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What came of each, by its name."""
    return tried()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_with_a_code_for_little_memory(told: dict[str, dict[str, Any]], name: str) -> None:
    codes = {kind.code for kind in every_failure() if kind.blame == "user"}
    assert told[name]["where"] in {"upload", "preflight"}, told[name]
    assert told[name]["code"] in codes
    assert told[name]["peak_mib"] < MOST_MIB


def test_the_page_tells_each(told: dict[str, dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \| (\w+) \| \d+ \|$", page, flags=re.MULTILINE)
    assert rows == [(name, told[name]["code"], told[name]["where"]) for name in NAMES]
