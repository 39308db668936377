"""All stores keep the same promises."""

import os
from pathlib import Path

import pytest

from app.kit.database import Database
from app.settings import Settings
from app.storage.base import BLOCK, BlobStore, MissingBlobError
from app.storage.stores import Stores, open_stores


@pytest.fixture(params=["files", "database", "s3"])
def store(request: pytest.FixtureRequest, stores: Stores) -> BlobStore:
    if request.param == "s3":
        opened: BlobStore = request.getfixturevalue("s3_store")
        return opened
    return stores.named(request.param)


def put(store: BlobStore, key: str, *blocks: bytes) -> None:
    with store.writer(key) as writer:
        for block in blocks:
            writer.write(block)
        writer.commit()


def read(store: BlobStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.read(key, start, end))


def test_what_was_put_can_be_read(store: BlobStore) -> None:
    blocks = [os.urandom(size) for size in (1, 0, BLOCK - 1, BLOCK, 3 * BLOCK, 17)]
    put(store, "key_1", *blocks)
    assert read(store, "key_1") == b"".join(blocks)
    assert read(store, "key_1", BLOCK - 1, 2 * BLOCK + 1) == b"".join(blocks)[BLOCK - 1:2 * BLOCK + 1]


def test_nothing_is_a_content_too(store: BlobStore) -> None:
    put(store, "key_1")
    assert read(store, "key_1") == b""


def test_what_was_not_committed_is_not_there(store: BlobStore) -> None:
    with store.writer("key_1") as writer:
        writer.write(bytes(2 * BLOCK))
    with pytest.raises(MissingBlobError):
        read(store, "key_1")


def test_what_was_written_can_be_looked_at_before_it_is_kept(store: BlobStore) -> None:
    content = os.urandom(11 * BLOCK + 5)
    with store.writer("key_1") as writer:
        writer.write(content)
        with writer.reopen() as file:
            assert file.read(3) == content[:3]
            assert file.seek(-4, os.SEEK_END) == len(content) - 4
            assert file.read() == content[-4:]
            file.seek(9 * BLOCK)
            assert file.read(BLOCK) == content[9 * BLOCK:10 * BLOCK]
        writer.commit()
    assert read(store, "key_1") == content


def test_what_was_looked_at_and_not_kept_is_not_there(store: BlobStore) -> None:
    with store.writer("key_1") as writer:
        writer.write(bytes(11 * BLOCK))
        writer.reopen().close()
    with pytest.raises(MissingBlobError):
        read(store, "key_1")


def test_a_store_in_order_has_nothing_to_complain_of(store: BlobStore) -> None:
    store.check()
    assert store.drop_unfinished(0.0) == 0


def test_a_read_tells_when_bytes_are_missing(store: BlobStore) -> None:
    put(store, "key_1", b"short")
    with pytest.raises(MissingBlobError):
        read(store, "key_1", 0, 6)
    with pytest.raises(MissingBlobError):
        read(store, "key_2")


def test_deleting_is_final_and_may_be_repeated(store: BlobStore) -> None:
    put(store, "key_1", bytes(40 * BLOCK))
    put(store, "key_2", b"stays")
    for _ in range(2):
        store.delete("key_1")
    with pytest.raises(MissingBlobError):
        read(store, "key_1")
    assert read(store, "key_2") == b"stays"


def test_the_settings_say_where(sqlite_database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    stores = open_stores(sqlite_database, Settings(blob_url=f"file:{folder}", min_free_bytes=0))
    put(stores.files, "key_1", b"x")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["key_1"]
    assert stores.named("database") is stores.database


@pytest.mark.parametrize("url", [
    "", "file:", "/folder", "s3:", "s3:///prefix", "s3://bucket?speed=high", "s3://bucket?path_style=maybe",
])
def test_a_place_that_is_none_is_refused(sqlite_database: Database, url: str) -> None:
    with pytest.raises(ValueError, match="STILLHOUSE_BLOB_URL"):
        open_stores(sqlite_database, Settings(blob_url=url))
