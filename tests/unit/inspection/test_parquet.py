import io
import random

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from app.artifacts.inspection import ParquetFacts, inspect
from app.artifacts.inspection.thrift import MAX_DEPTH, Kind, Reader, ThriftError
from stillhouse.contract.failures import EmptyDataError, MalformedParquetError, StillhouseError

TABLE = pa.table({
    "i8": pa.array([1, 2], pa.int8()), "u64": pa.array([1, 2], pa.uint64()), "f": [1.0, 2.0],
    "half": pa.array(np.array([1, 2], np.float16)), "flag": [True, False], "text": ["a", "b"], "bytes": [b"a", b"b"],
    "image": [{"bytes": b"x", "path": "p"}, {"bytes": b"y", "path": "q"}], "list": [[1.0], [2.0, 3.0]],
    "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), "nested": [[[1], [2]], [[3], [4]]],
    "texts": [["a"], []], "category": pa.array(["x", "y"]).dictionary_encode(),
    "time": pa.array([1, 2], pa.timestamp("ms")), "a, <b>: c": [1, 2],
})
TYPES = {
    "i8": "int8", "u64": "uint64", "f": "float64", "half": "float16", "flag": "bool", "text": "string",
    "bytes": "binary", "image": "struct<bytes: binary, path: string>", "list": "list<float64>", "fixed": "list<int64>",
    "nested": "list<list<int64>>", "texts": "list<string>", "category": "string", "time": "int64 (of another meaning)",
    "a, <b>: c": "int64",
}


def written(table: pa.Table, **options: object) -> bytes:
    content = io.BytesIO()
    parquet.write_table(table, content, **options)
    return content.getvalue()


def facts_of(content: bytes) -> ParquetFacts:
    facts = inspect(io.BytesIO(content), len(content), "parquet")
    assert isinstance(facts, ParquetFacts)
    return facts


@pytest.mark.parametrize("options", [{}, {"version": "1.0"}, {"use_compliant_nested_type": False}])
def test_what_arrow_writes_is_read(options: dict[str, object]) -> None:
    # The first version has no unsigned 64-bit numbers of its own, and no half ones.
    facts = facts_of(written(TABLE, **options))
    assert (facts.num_rows, facts.columns) == (2, TYPES)


def test_many_row_groups_make_no_difference() -> None:
    facts = facts_of(written(pa.table({"x": range(5000)}), row_group_size=10))
    assert (facts.num_rows, facts.columns) == (5000, {"x": "int64"})


FILE = written(TABLE)
FOOTER = int.from_bytes(FILE[-8:-4], "little")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (FILE[:-1], "cut short"),
        (b"PAR1", "cut short"),
        (b"hello, this is text", "cut short"),
        (FILE[:-4] + b"PARE", "encrypted"),
        (FILE[:-8] + (2**31).to_bytes(4, "little") + b"PAR1", "cannot be"),
        (FILE[:-8] + (3).to_bytes(4, "little") + b"PAR1", "damaged"),
        (b"PAR1" + bytes(100) + (100).to_bytes(4, "little") + b"PAR1", "no schema"),
        (FILE[:-8 - FOOTER] + b"\xff" * FOOTER + FILE[-8:], "damaged"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(MalformedParquetError, match=told):
        facts_of(content)


@pytest.mark.parametrize("table", [pa.table({"x": pa.array([], pa.int64())}), pa.table({})])
def test_no_rows_are_refused(table: pa.Table) -> None:
    with pytest.raises(EmptyDataError, match="no samples"):
        facts_of(written(table))


def test_any_footer_is_read_or_refused_and_nothing_else() -> None:
    draw = random.Random(0)  # noqa: S311 - not for secrets
    refused = 0
    for _ in range(2000):
        content = bytearray(FILE)
        for _ in range(draw.randint(1, 4)):
            content[len(FILE) - 8 - FOOTER + draw.randrange(400)] = draw.randrange(256)
        try:
            facts_of(bytes(content))
        except StillhouseError:
            refused += 1
    assert refused > 500


def test_hostile_numbers_cost_nothing() -> None:
    with pytest.raises(ThriftError, match="does not end"):
        Reader(b"\xff" * 20).integer()
    with pytest.raises(ThriftError, match="too soon"):
        Reader(b"\xff\xff\xff\xff\x7f").binary()
    with pytest.raises(ThriftError, match="too soon"):
        Reader(b"\xfc\xff\xff\xff\xff\x7f").skip(Kind.LIST)
    with pytest.raises(ThriftError, match="too deeply"):
        Reader(b"\x1c" * (MAX_DEPTH + 2)).skip(Kind.STRUCT)
    with pytest.raises(ThriftError, match="unknown type 11"):
        Reader(b"\x00").skip(11)
