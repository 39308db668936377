"""The page of the sandbox names tests that there are, and every test of the sandbox."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of how it is told, not of what it holds.
_OF_TELLING = {
    "test_its_own_folder_can_be_written", "test_without_landlock_a_trainer_tells_what_is_missing_and_goes_on",
    "test_a_trainer_that_must_be_confined_does_no_job_where_it_cannot", "test_a_worker_tells_what_is_in_force",
    "test_a_worker_that_must_confine_does_not_start_where_it_cannot",
}


def test_every_property_has_its_test_and_every_test_its_property() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    tests = ast.parse((ROOT / "tests" / "integration" / "worker" / "test_sandbox.py").read_text()).body
    defined = {node.name for node in tests if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named == defined - _OF_TELLING
