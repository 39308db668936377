import io

import pytest

from app.artifacts.inspection import CsvFacts, inspect
from app.artifacts.inspection.table import MAX_HEADER
from stillhouse.contract.failures import EmptyDataError, MalformedCsvError


def facts_of(content: bytes) -> CsvFacts:
    facts = inspect(io.BytesIO(content), len(content), "csv")
    assert isinstance(facts, CsvFacts)
    return facts


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"age,city\r\n1,Paris\r\n", "age,city"), ("\ufeffâge;b\n1;2".encode(), "âge;b"),
        (b'"a, b",c\n1,2\n', '"a, b",c'),
    ],
)
def test_the_header_row_is_kept(content: bytes, header: str) -> None:
    assert facts_of(content).header == header


def test_text_beyond_the_first_piece_is_looked_at() -> None:
    rows = b"a,b\n" + b"1,2\n" * 300_000
    assert facts_of(rows).header == "a,b"
    with pytest.raises(MalformedCsvError, match="Line 300,002 is not UTF-8"):
        facts_of(rows + b"1,\xff\n")
    with pytest.raises(MalformedCsvError, match="zero bytes"):
        facts_of(rows + b"1,\0\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,é\n".encode("latin-1"), "Line 2 is not UTF-8"),
        (b"a,b\n1,\xc3", "Line 2 is not UTF-8"),
        (b"\n1,2\n", "first line is empty"),
        (b"x" * (MAX_HEADER + 1) + b"\n1\n", "longer than"),
    ],
)
def test_what_is_no_table_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(MalformedCsvError, match=told):
        facts_of(content)


@pytest.mark.parametrize("content", [b"a,b\n", b"a,b", b"a,b\n\n\n"])
def test_a_header_alone_is_refused(content: bytes) -> None:
    with pytest.raises(EmptyDataError, match="no samples"):
        facts_of(content)
