import re
from collections import Counter
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings
from stillhouse.contract.failures import every_failure

ROOT = Path(__file__).parents[3]
_ROW = re.compile(r"^\| `(?P<code>\w+)` \| (?P<http>[^|]+) \| (?P<where>[^|]+) \| (?P<advice>[^|]+) \|$", re.MULTILINE)
ROWS = [row.groupdict() for row in _ROW.finditer((ROOT / "docs" / "errors.md").read_text())]
STATUS = {kind.code: str(int(kind.http_status)) for kind in every_failure()}
# Not a matter of any one route.
OF_NO_ROUTE = {"method_not_allowed"}


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("app")
    app = create_app(Settings(database_url=f"sqlite:///{folder}/x.db", blob_url=f"file:{folder}/blobs"))
    return {
        code
        for operations in app.openapi()["paths"].values() for operation in operations.values()
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }


def test_every_failure_has_one_row_and_every_row_a_failure() -> None:
    assert Counter(row["code"] for row in ROWS) == Counter(STATUS.keys())


def test_a_row_tells_the_status_of_what_the_api_answers(declared: set[str]) -> None:
    answered = declared | OF_NO_ROUTE
    for row in ROWS:
        ways = row["http"].split(", ")
        assert set(ways) <= {STATUS[row["code"]], "job"}, row
        assert (STATUS[row["code"]] in ways) == (row["code"] in answered), row


def test_a_row_gives_advice() -> None:
    assert [row["code"] for row in ROWS if len(row["advice"]) < 30] == []
