"""docs/faults.md says what the tests of faults provoke."""

import ast
import json
import re
from pathlib import Path

import pytest

from scripts.faults_page import PAGE, RESULTS, TESTS, faults, page

MODULES = sorted(path for path in TESTS.glob("test_*.py") if path.name != "test_undisturbed.py")


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_test_of_a_fault_has_a_row_and_is_timed(path: Path) -> None:
    tests = [
        node for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    rows = set(re.findall(r"`(test_\w+\.py::test_\w+)` \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE))
    assert {f"{path.name}::{test.name}" for test in tests} <= rows
    assert [test.name for test in tests if "recovery" not in {argument.arg for argument in test.args.args}] == []


def test_every_row_has_a_test_with_at_least_three_times() -> None:
    measured = json.loads(RESULTS.read_text("utf-8"))["recovery_seconds"]
    names = {fault.test.partition("::")[2] for fault in faults()}
    assert set(measured) == names
    assert [name for name, seconds in measured.items() if len(seconds) < 3] == []
