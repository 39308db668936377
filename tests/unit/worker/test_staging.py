"""The cache gives the bytes that the digest promises, whatever happened to its files."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.contract.failures import StagingFailedError
from worker.staging import Cache, Input


class Source:
    """Something to stage, that counts how often it is fetched."""

    def __init__(self, content: bytes, promised: bytes | None = None) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content if promised is None else promised).hexdigest()
        self.num_fetches = 0

    def wanted(self) -> Input:
        return Input(self.sha256, len(self.content), self._fetch)

    def _fetch(self) -> Iterator[bytes]:
        self.num_fetches += 1
        yield from (self.content[at:at + 3] for at in range(0, len(self.content), 3))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_input_is_fetched_once(tmp_path: Path) -> None:
    source, cache = Source(b"some bytes"), Cache(tmp_path, 1000)
    for _ in range(2):
        with cache.staged({"art": source.wanted()}) as paths:
            assert paths["art"].read_bytes() == b"some bytes"
    assert source.num_fetches == 1
    assert names(tmp_path) == {source.sha256}


@pytest.mark.parametrize("damage", [b"some bytez", b"some byte", b""])
def test_a_damaged_entry_is_fetched_anew(tmp_path: Path, damage: bytes) -> None:
    source, cache = Source(b"some bytes"), Cache(tmp_path, 1000)
    with cache.staged({"art": source.wanted()}) as paths:
        paths["art"].write_bytes(damage)
    with cache.staged({"art": source.wanted()}) as paths:
        assert paths["art"].read_bytes() == b"some bytes"
    assert source.num_fetches == 2


def test_damage_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    source, cache = Source(b"some bytes"), Cache(tmp_path, 1000)
    with cache.staged({"art": source.wanted()}) as paths:
        before = paths["art"].stat()
        paths["art"].write_bytes(b"some bytez")
        os.utime(paths["art"], ns=(before.st_atime_ns, before.st_mtime_ns))
    with cache.staged({"art": source.wanted()}) as paths:
        assert paths["art"].read_bytes() == b"some bytes"


def test_bytes_that_break_the_promise_leave_nothing(tmp_path: Path) -> None:
    source, cache = Source(b"some bytez", promised=b"some bytes"), Cache(tmp_path, 1000)
    with pytest.raises(StagingFailedError), cache.staged({"art": source.wanted()}):
        pass
    assert names(tmp_path) == set()


def test_a_fetch_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def fetch() -> Iterator[bytes]:
        yield b"some "
        raise ConnectionError

    with (
        pytest.raises(ConnectionError),
        Cache(tmp_path, 1000).staged({"art": Input(Source(b"some bytes").sha256, 10, fetch)}),
    ):
        pass
    assert names(tmp_path) == set()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 30)
    old, used, new = Source(b"a" * 10), Source(b"b" * 10), Source(b"c" * 15)
    for at, source in enumerate((old, used)):
        with cache.staged({"art": source.wanted()}) as paths:
            pass
        os.utime(paths["art"], (at, at))
    with cache.staged({"art": old.wanted()}):  # which makes it the newer of the two
        pass
    with cache.staged({"art": new.wanted()}):
        pass
    assert names(tmp_path) == {old.sha256, new.sha256}


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10)
    used, new = Source(b"a" * 10), Source(b"b" * 10)
    with cache.staged({"art": used.wanted()}) as paths, cache.staged({"art": new.wanted()}):
        assert paths["art"].exists(), "rather too much disk than a job without its input"
    with cache.staged({"art": Source(b"c").wanted()}):
        assert names(tmp_path) == {Source(b"c").sha256}


def test_what_another_worker_uses_stays(tmp_path: Path) -> None:
    cache, used = Cache(tmp_path, 10), Source(b"a" * 10)
    with cache.staged({"art": used.wanted()}) as paths:
        pass
    with paths["art"].open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with Cache(tmp_path, 10).staged({"art": Source(b"b" * 10).wanted()}):
            assert paths["art"].exists()


def test_an_abandoned_download_is_removed_when_room_is_needed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".abandoned"
    abandoned.write_bytes(b"x" * 100)
    with Cache(tmp_path, 50).staged({"art": Source(b"a").wanted()}):
        assert not abandoned.exists()
