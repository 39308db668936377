"""Whatever a client sends, databases can store."""

import json

from hypothesis import given
from hypothesis import strategies as st

from app.kit.connections import _to_json
from app.kit.database import storable

ANY_TEXT = st.text(st.characters(codec=None, categories=None) | st.sampled_from("\0\\u0\ud800\udc00"))


def clean(text: str) -> bool:
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


@given(ANY_TEXT)
def test_text_becomes_storable(text: str) -> None:
    stored = storable(text)
    assert clean(stored)
    if clean(text):
        assert stored == text


@given(st.recursive(
    ANY_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)
))
def test_json_becomes_storable(value: object) -> None:
    stored = _to_json(value)
    assert clean(stored)
    assert clean(str(json.loads(stored)))
    if clean(str_of(value)):
        assert json.loads(stored) == value


def str_of(value: object) -> str:
    """Every text in the value."""
    if isinstance(value, dict):
        return "".join(str_of(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return "".join(map(str_of, value))
    return value if isinstance(value, str) else ""


def test_an_escaped_escape_is_no_nul() -> None:
    assert _to_json("\\u0000") == '"\\\\u0000"'
    assert _to_json("\\\0\0") == '"\\\\\ufffd\ufffd"'
