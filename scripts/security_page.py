"""Writes the table of hostile files in docs/security.md: python -m scripts.security_page."""

from pathlib import Path
from typing import Final

from tests.fixtures.hostile.results import tried

PAGE: Final = Path(__file__).parents[1] / "docs" / "security.md"
HEAD: Final = "| file | code | told at | MiB |\n|---|---|---|---|\n"


def main() -> None:
    """Write the rows below the table's head, to the page's end."""
    kept, _, _ = PAGE.read_text().partition(HEAD)
    rows = (
        f"| {name} | `{told['code']}` | {told['where']} | {told['peak_mib']} |\n" for name, told in tried().items()
    )
    PAGE.write_text(kept + HEAD + "".join(rows))


if __name__ == "__main__":
    main()
