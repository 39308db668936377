"""What fuzzing has reached and found, tried again: nothing unforeseen comes out, and little memory is used."""

import re
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest

from stillhouse.contract.resources import UploadFormat
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
# Of Python's own allocations, for files of at most 8 KiB; a piece of an archive is 16 MiB.
MOST_BYTES = 48 * 1024**2


def test_every_format_every_corpus_and_every_row_of_the_docs_has_its_target() -> None:
    assert set(get_args(UploadFormat)) <= set(TARGETS)
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    table = PAGE.read_text().partition("## Fuzzing\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_unforeseen_comes_of_the_corpus(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    tracemalloc.start()
    try:
        for file in files:
            content = file.read_bytes()
            try:
                TARGETS[name](content)
            except Exception as error:
                raise AssertionError(f"{name} raises {error!r} on {file.name}") from error
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES, file.name
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
