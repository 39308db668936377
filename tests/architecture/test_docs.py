"""What the docs promise, the code has, and the other way round."""

import json
from pathlib import Path

from app.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


def test_every_setting_has_its_row() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        default = json.dumps(field.default) if isinstance(field.default, list) else field.default
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    table = (DOCS / "operations.md").read_text().split("|---|---|---|\n")[-1]
    assert table.splitlines() == rows
