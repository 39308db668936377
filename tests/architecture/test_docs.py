"""What the docs promise, the code has, and the other way round."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from stillhouse.cli.commands import app
from stillhouse.contract.spec import DerivedStudent, JobSpec, Task, usual_objective
from stillhouse.contract.spec.architecture import AnyArchitecture

ROOT = Path(__file__).parents[2]


def test_every_setting_has_its_row() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        default = json.dumps(field.default) if isinstance(field.default, list) else field.default
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    table = (ROOT / "docs" / "operations.md").read_text().split("|---|---|---|\n")[-1]
    assert table.splitlines() == rows


def test_every_task_has_its_rows() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*", page, flags=re.MULTILINE)]
    sections = {section.model_fields["kind"].default: section for section in get_args(get_args(Task)[0])}
    assert [row[0].strip("`") for row in rows] == [*sections, *sections]
    for row, (kind, section) in zip(rows[len(sections):], sections.items(), strict=True):
        labelled = usual_objective(kind, is_labelled=True)
        assert re.findall(r"`(\w+)`", row[1]) == [term.kind for term in labelled.terms]
        assert re.findall(r"`(\w+)`", row[2]) == [section.quality]


@pytest.mark.parametrize(("heading", "union"), [("By name", AnyArchitecture), ("From the teacher", DerivedStudent)])
def test_every_kind_of_model_has_its_row_with_its_fields(heading: str, union: object) -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
    fitted = {"kind", "num_classes", "input_shape"}
    assert {kind: set(re.findall(r"\w+", fields)) for kind, fields in rows} == {
        section.model_fields["kind"].default: set(section.model_fields) - fitted for section in get_args(union)
    }


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
