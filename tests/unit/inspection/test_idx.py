import gzip
import io

import pytest

from app.artifacts.inspection import IdxFacts, inspect
from stillhouse.contract.bounds import FREE_BYTES, gunzip
from stillhouse.contract.failures import EmptyDataError, EmptyUploadError, MalformedIdxError
from tests.fixtures.files import gzipped_idx, idx


def facts_of(content: bytes) -> IdxFacts:
    facts = inspect(io.BytesIO(content), len(content), "idx")
    assert isinstance(facts, IdxFacts)
    return facts


@pytest.mark.parametrize(
    ("code", "item_bytes", "dtype"),
    [(0x08, 1, "uint8"), (0x09, 1, "int8"), (0x0B, 2, "int16"), (0x0C, 4, "int32"), (0x0D, 4, "float32"),
     (0x0E, 8, "float64")],
)
def test_shape_and_type_are_told(code: int, item_bytes: int, dtype: str) -> None:
    facts = facts_of(idx([5, 3, 2], code=code, item_bytes=item_bytes))
    assert (facts.shape, facts.dtype, facts.is_gzipped) == ([5, 3, 2], dtype, False)


def test_gzip_is_seen_through() -> None:
    facts = facts_of(gzipped_idx([5, 28, 28]))
    assert (facts.shape, facts.is_gzipped) == ([5, 28, 28], True)


def test_gzip_of_several_members_and_padding_is_seen_through() -> None:
    content = idx([600, 1000])
    packed = gzip.compress(content[:7]) + gzip.compress(content[7:]) + bytes(100)
    assert facts_of(packed).shape == [600, 1000]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello, this is text", "does not begin as IDX"),
        (b"\0\0\x07\x01\0\0\0\1x", "does not begin as IDX"),
        (b"\0\0\x08", "does not begin as IDX"),
        (b"\0\0\x08\x00", "0 axes"),
        (b"\0\0\x08\x09" + bytes(100), "9 axes"),
        (b"\0\0\x08\x03\0\0\0\1", "3 axes"),
        (idx([5, 4])[:-1], "has only 31"),
        (idx([5, 4]) + b"x", "at least 33"),
        (gzipped_idx([5, 400])[:-9], "not sound gzip"),
        (gzipped_idx([5, 400])[:12], "not sound gzip"),
        (b"\x1f\x8b" + b"x" * 50, "not sound gzip"),
        (gzip.compress(idx([5, 4])[:-1], mtime=0), "has only 31"),
        (gzip.compress(idx([5, 4]) + bytes(10), mtime=0), "at least"),
        (gzip.compress(b"", mtime=0), "does not begin as IDX"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(MalformedIdxError, match=told):
        facts_of(content)


@pytest.mark.parametrize("content", [idx([0, 28, 28]), idx([0]), gzipped_idx([0, 28, 28]), idx([5, 0])])
def test_no_samples_are_refused(content: bytes) -> None:
    with pytest.raises(EmptyDataError, match="no samples"):
        facts_of(content)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(EmptyUploadError):
        facts_of(b"")


def test_a_gzip_bomb_is_refused_by_its_header_and_not_unpacked() -> None:
    bomb = gzip.compress(idx([1])[:4] + (FREE_BYTES * 2).to_bytes(4, "big") + bytes(1_000_000))
    with pytest.raises(MalformedIdxError, match="claim to unpack"):
        facts_of(bomb)


def test_a_gzip_bomb_with_a_small_header_is_left_where_it_exceeds_it() -> None:
    bomb = io.BytesIO(gzip.compress(idx([10]) + bytes(50_000_000)))
    with pytest.raises(MalformedIdxError, match="at least"):
        facts_of(bomb.getvalue())


def test_unpacking_yields_bounded_pieces() -> None:
    content = bytes(5_000_000)
    pieces = list(gunzip(io.BytesIO(gzip.compress(content))))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 256 * 1024
