"""What is special about S3: parts, ranges, credentials, and a server in trouble."""

import os
import secrets
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.artifacts import service
from app.artifacts.models import LooseBlobRow
from app.kit.database import Database
from app.settings import MIB, Settings
from app.storage import s3 as module
from app.storage.base import BLOCK, MissingBlobError
from app.storage.database import DatabaseStore
from app.storage.s3 import Place, S3Store, open_s3, parse_place
from app.storage.stores import Stores
from stillhouse.contract.failures import StorageFullError, UnavailableError
from tests.fixtures.faulty_s3 import FaultyS3, Trouble, faulty_s3
from tests.fixtures.jobs import upload
from tests.fixtures.s3 import BUCKET, READER_KEY, READER_SECRET, S3

CONTENT = os.urandom(15 * MIB + 17)
BUSY = Trouble(503, "SlowDown")


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def store(s3: S3, prefix: str) -> Iterator[S3Store]:
    opened = open_s3(s3.settings(prefix))
    yield opened
    opened.close()


@pytest.fixture
def faulty(s3: S3) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def frail(s3: S3, prefix: str, faulty: FaultyS3) -> Iterator[S3Store]:
    """A store behind the proxy, of the smallest parts that S3 takes."""
    opened = open_s3(s3.settings(blob_url=s3.url(prefix, endpoint=faulty.endpoint)))
    opened.part_bytes = 5 * MIB
    yield opened
    opened.close()


def put(store: S3Store, key: str, content: bytes) -> None:
    with store.writer(key) as writer:
        writer.write(content)
        writer.commit()


def read(store: S3Store, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.read(key, start, end))


# Where it is, and who asks


def test_a_url_tells_bucket_prefix_and_server() -> None:
    assert parse_place("s3://bucket") == Place("bucket")
    assert parse_place("s3://bucket/a/b/?endpoint=http://127.0.0.1:8333&region=eu-1") == Place(
        "bucket", "a/b/", "http://127.0.0.1:8333", "eu-1", path_style=True
    )
    assert not parse_place("s3://bucket?endpoint=http://s3.example.org&path_style=false").path_style


def test_the_secret_may_stand_in_a_file(s3: S3, prefix: str, tmp_path: Path) -> None:
    settings = s3.settings(prefix)
    assert settings.s3_secret_key is not None
    (tmp_path / "secret").write_text(settings.s3_secret_key.get_secret_value() + "\n")
    opened = open_s3(s3.settings(prefix, s3_secret_key=None, s3_secret_key_file=tmp_path / "secret"))
    put(opened, "key_1", b"x")
    opened.close()
    assert s3.keys(prefix) == {"key_1"}


@pytest.mark.parametrize("half", ["s3_access_key", "s3_secret_key"])
def test_half_a_credential_is_refused(s3: S3, half: str) -> None:
    with pytest.raises(ValueError, match="STILLHOUSE_S3_ACCESS_KEY"):
        open_s3(s3.settings().model_copy(update={half: None}))


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("_no_credentials")
def test_without_credentials_it_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="STILLHOUSE_S3_SECRET_KEY"):
        open_s3(Settings(blob_url="s3://bucket"))


@pytest.mark.usefixtures("_no_credentials")
def test_credentials_of_the_environment_are_read_once(
    s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = s3.settings(prefix)
    assert given.s3_access_key is not None
    assert given.s3_secret_key is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given.s3_secret_key.get_secret_value())
    opened = open_s3(Settings(blob_url=given.blob_url))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    put(opened, "key_1", b"x")
    opened.close()
    assert s3.keys(prefix) == {"key_1"}


@pytest.mark.parametrize("wrong", [
    {"s3_access_key": READER_KEY, "s3_secret_key": READER_SECRET},
    {"s3_secret_key": "wrong"},  # pragma: allowlist secret
], ids=["may only read", "wrong secret"])
def test_a_server_that_refuses_is_no_fault_of_the_user(
    s3: S3, prefix: str, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_s3(s3.settings(prefix, **wrong))
    with pytest.raises(UnavailableError, match="refuses"):
        put(opened, "key_1", b"x")
    opened.close()
    assert "the blob store refuses" in caplog.text


def test_a_bucket_that_is_not_there_is_not_a_blob_that_is_not_there(s3: S3, prefix: str) -> None:
    opened = open_s3(s3.settings(blob_url=s3.url(prefix, bucket="nobodys")))
    for action in (lambda: read(opened, "key_1"), lambda: put(opened, "key_1", b"x"), opened.check):
        with pytest.raises(UnavailableError, match="refuses"):
            action()
    opened.close()


# Parts


def test_a_large_file_passes_through_little_memory(store: S3Store, s3: S3, prefix: str) -> None:
    tracemalloc.start()
    with store.writer("key_1") as writer:
        for number in range(96):
            writer.write(bytes([number]) * MIB)
        writer.commit()
    read_bytes = [(block[0], len(block)) for block in store.read("key_1")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read_bytes == [(number, MIB) for number in range(96)]
    assert peak < 4 * store.part_bytes
    assert s3.keys(prefix) == {"key_1"}


def test_parts_grow_with_what_may_be_uploaded(s3: S3) -> None:
    opened = open_s3(s3.settings(max_upload_bytes=200_000 * MIB))
    assert opened.part_bytes == 20 * MIB
    opened.close()


def test_more_parts_than_s3_takes_are_refused(frail: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PARTS", 2)
    with pytest.raises(StorageFullError, match="size"):
        put(frail, "key_1", CONTENT)


def test_an_upload_that_is_given_up_leaves_no_parts(frail: S3Store, s3: S3, prefix: str) -> None:
    with frail.writer("key_1") as writer:
        writer.write(CONTENT)
        assert s3.keys(prefix) == {"key_1"}
    assert s3.keys(prefix) == set()


def test_deleting_ends_an_upload_of_a_process_that_is_gone(frail: S3Store, s3: S3, prefix: str) -> None:
    frail.writer("key_1").write(CONTENT)
    frail.writer("key_12").write(CONTENT)
    frail.delete("key_1")
    assert s3.keys(prefix) == {"key_12"}


def test_uploads_without_a_new_part_for_long_are_dropped(frail: S3Store, s3: S3, prefix: str) -> None:
    frail.writer("key_1").write(CONTENT)
    put(frail, "key_2", CONTENT)
    assert frail.drop_unfinished(3600) == 0
    assert s3.keys(prefix) == {"key_1", "key_2"}
    assert frail.drop_unfinished(-5) == 1  # by the server's clock, in whole seconds
    assert s3.keys(prefix) == {"key_2"}


def test_checksums_are_those_that_every_server_knows(frail: S3Store, faulty: FaultyS3) -> None:
    put(frail, "key_1", CONTENT)
    put(frail, "key_2", b"x")
    sent = [headers for line, headers in faulty.requests if line.startswith("PUT")]
    assert len(sent) == 5
    assert all("content-md5" in headers for headers in sent)
    named = {name for _, headers in faulty.requests for name in headers}
    assert not {name for name in named if "checksum" in name or "trailer" in name}


# A server in trouble


def test_a_busy_server_is_asked_again(frail: S3Store, faulty: FaultyS3) -> None:
    faulty.plan("PUT", BUSY, Trouble(500))
    faulty.plan("POST", BUSY)
    faulty.plan("GET", BUSY)
    put(frail, "key_1", CONTENT)
    assert read(frail, "key_1") == CONTENT
    assert not faulty.troubles


@pytest.mark.parametrize(("method", "word"), [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")])
def test_a_server_that_stays_busy_is_unavailable_and_keeps_nothing(
    frail: S3Store, faulty: FaultyS3, s3: S3, prefix: str, method: str, word: str
) -> None:
    faulty.plan(method, *[BUSY] * 3, word=word)
    with pytest.raises(UnavailableError, match="out of reach"):
        put(frail, "key_1", CONTENT)
    assert not faulty.troubles
    assert s3.keys(prefix) == set()


def test_an_answer_that_is_cut_goes_on_where_it_was_cut(frail: S3Store, faulty: FaultyS3) -> None:
    put(frail, "key_1", CONTENT)
    faulty.plan("GET", Trouble(keep=BLOCK + 5), Trouble(keep=0), Trouble(keep=BLOCK))
    assert read(frail, "key_1") == CONTENT
    faulty.plan("GET", Trouble(keep=100))
    assert read(frail, "key_1", 5, BLOCK + 77) == CONTENT[5:BLOCK + 77]
    assert not faulty.troubles


def test_an_answer_that_is_always_cut_is_never_taken_for_the_whole(
    frail: S3Store, faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(frail, "key_1", CONTENT)
    monkeypatch.setattr(module, "_MAX_CUTS", 1)
    faulty.plan("GET", *[Trouble(keep=0)] * 2)
    with pytest.raises(UnavailableError):
        read(frail, "key_1")


def test_a_slow_answer_is_asked_for_again(
    s3: S3, prefix: str, faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_SECONDS", 1)
    opened = open_s3(s3.settings(blob_url=s3.url(prefix, endpoint=faulty.endpoint)))
    faulty.plan("PUT", Trouble(seconds=60))
    put(opened, "key_1", CONTENT)
    faulty.plan("GET", Trouble(seconds=60))
    assert read(opened, "key_1") == CONTENT
    opened.close()


# Asked once more, some servers complete it again, and others know of no such upload any longer.
@pytest.mark.parametrize("second", [[], [Trouble(404, "NoSuchUpload")]], ids=["completed again", "forgotten"])
def test_a_completion_whose_answer_was_lost_counts(frail: S3Store, faulty: FaultyS3, second: list[Trouble]) -> None:
    faulty.plan("POST", Trouble(lost=True), *second, word="uploadId")
    put(frail, "key_1", CONTENT)
    assert read(frail, "key_1") == CONTENT
    assert not faulty.troubles


def test_a_completion_of_something_else_does_not(frail: S3Store, s3: S3) -> None:
    with frail.writer("key_1") as writer:
        writer.write(CONTENT)
        s3.abort_all()
        with pytest.raises((UnavailableError, MissingBlobError)):
            writer.commit()


@pytest.mark.parametrize("full", [Trouble(507, "XMinioStorageFull"), Trouble(403, "QuotaExceeded")])
def test_a_full_server_is_storage_full(frail: S3Store, faulty: FaultyS3, full: Trouble) -> None:
    faulty.plan("PUT", *[full] * 3)
    with pytest.raises(StorageFullError):
        put(frail, "key_1", CONTENT)


def test_a_server_that_is_away_is_told_soon(prefix: str, s3: S3) -> None:
    opened = open_s3(s3.settings(blob_url=s3.url(prefix, endpoint="http://127.0.0.1:1")))
    for action in (opened.check, lambda: opened.drop_unfinished(0), lambda: put(opened, "key_1", b"x")):
        with pytest.raises(UnavailableError, match="out of reach"):
            action()
    opened.close()


# What artifacts make of it


def loose(db: Database) -> set[str]:
    with db.reading() as session:
        return set(session.scalars(select(LooseBlobRow.id)))


def test_what_could_not_be_dropped_is_dropped_later(
    sqlite_database: Database, frail: S3Store, faulty: FaultyS3, s3: S3, prefix: str
) -> None:
    stores = Stores(files=frail, database=DatabaseStore(sqlite_database))
    faulty.plan("PUT", *[BUSY] * 3, word="partNumber=3")
    faulty.plan("DELETE", *[BUSY] * 6)
    with pytest.raises(UnavailableError):
        upload(sqlite_database, stores, CONTENT)
    assert s3.keys(prefix) == loose(sqlite_database) != set()
    assert service.sweep(sqlite_database, stores) == 1
    assert s3.keys(prefix) == loose(sqlite_database) == set()


def test_a_deletion_while_the_server_is_away_is_made_up_for(
    sqlite_database: Database, frail: S3Store, faulty: FaultyS3, s3: S3, prefix: str
) -> None:
    stores = Stores(files=frail, database=DatabaseStore(sqlite_database))
    artifact = upload(sqlite_database, stores, CONTENT)
    faulty.plan("DELETE", *[BUSY] * 3)
    service.delete(sqlite_database, stores, owner="ann", artifact_id=artifact.id)
    assert s3.keys(prefix) == loose(sqlite_database) == {artifact.blob_id}
    assert service.sweep(sqlite_database, stores) == 1
    assert s3.keys(prefix) == set()


def test_an_object_that_somebody_else_cut_short_is_missing(store: S3Store, s3: S3) -> None:
    put(store, "key_1", CONTENT)
    client = s3.client()
    client.put_object(Bucket=BUCKET, Key=store.path("key_1"), Body=CONTENT[:BLOCK])
    client.close()
    with pytest.raises(MissingBlobError):
        read(store, "key_1", 0, len(CONTENT))
    with pytest.raises(MissingBlobError):
        read(store, "key_1", 2 * BLOCK, len(CONTENT))
