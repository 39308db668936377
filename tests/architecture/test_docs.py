"""What the docs promise, the code has, and the other way round."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from stillhouse.cli.commands import app
from stillhouse.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]


def test_every_setting_has_its_row() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        default = json.dumps(field.default) if isinstance(field.default, list) else field.default
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    table = (ROOT / "docs" / "operations.md").read_text().split("|---|---|---|\n")[-1]
    assert table.splitlines() == rows


def commands(page: str) -> list[list[str]]:
    """Each command of the page's plain code blocks, as words, without the comment; what they print is passed over."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("make ", ".venv/bin/"))]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/mnist/README.md", "benchmarks/README.md"])
def test_every_link_to_a_file_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text())
    assert [target for target in targets if "://" not in target and not (folder / target).exists()] == []


def test_every_kind_of_data_has_its_row() -> None:
    kinds = JobSpec.model_json_schema()["properties"]["data"]["discriminator"]["mapping"]
    page = (ROOT / "docs" / "data.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == sorted(kinds)


def test_every_make_target_of_the_readme_exists() -> None:
    rules = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = {words[1] for words in commands("README.md") if words[:1] == ["make"]}
    assert named == {"demo", "test"}
    assert named <= targets


def test_the_readmes_commands_are_the_clis() -> None:
    lines = [words[1:] for words in commands("README.md") if words and words[0].endswith("/stillhouse")]
    assert {words[0] for words in lines} == {"up", "distill", "predict"}
    for words in lines:
        asked = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "300"})
        assert asked.exit_code == 0
        assert [word for word in words if word.startswith("--") and word not in asked.output] == []


def test_the_readmes_job_is_valid() -> None:
    (snippet,) = re.findall(r"client\.submit\((\{.*?\})\)", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    spec = snippet.replace("teacher.id", '"art_' + 20 * "a" + '"').replace("data.id", '"art_' + 20 * "b" + '"')
    assert JobSpec.model_validate(ast.literal_eval(spec)).student.kind == "mlp"
