"""Ids tell their kind and never repeat."""

import re

from app.kit.ids import new_id


def test_an_id_tells_its_kind() -> None:
    for prefix in ("job", "art", "key", "blob"):
        assert re.fullmatch(prefix + r"_[0-9a-z]{20}", new_id(prefix))


def test_ids_do_not_repeat() -> None:
    assert len({new_id("job") for _ in range(10_000)}) == 10_000
