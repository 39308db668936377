"""Resumable uploads, request by request, and by a client that others wrote."""

import hashlib
import io
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from app.artifacts import service as artifacts
from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.http import bodies
from app.kit.clock import now
from app.storage.watched import WatchedStore
from app.uploads import receiving
from app.uploads import service as uploads
from app.uploads.models import UploadPartRow, UploadRow
from stillhouse.contract.resources import Artifact, Upload
from tests.fixtures.files import idx
from tests.fixtures.service import ADMIN_KEY, Service, bearer, running_service
from tests.fixtures.tus import VERSION, Sender, checksum, metadata, raw_patch
from tests.fixtures.waiting import wait_until

CONTENT = idx([9, 1000, 1000])
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HTTP_SERVER_BUFFER = 512 * 1024


def count(service: Service, table: type) -> int:
    with service.parts.db.reading() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def swept_files(service: Service, tmp_path: Path) -> int:
    while artifacts.sweep(service.parts.db, service.parts.stores):
        pass
    return sum(path.is_file() for path in (tmp_path / "blobs").rglob("*"))


def is_clean(service: Service, tmp_path: Path) -> bool:
    """Whether nothing but rows of uploads is left."""
    left = swept_files(service, tmp_path)
    return left == 0 and not any(count(service, table) for table in (ArtifactRow, BlobRow, LooseBlobRow, UploadPartRow))


def set_columns(service: Service, **columns: object) -> None:
    with service.parts.db.writing() as session:
        session.execute(update(UploadRow).values(columns))


@pytest.fixture
def sender(service: Service) -> Sender:
    return Sender(service.client)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(receiving, "PART_BYTES", 2_000_000)
    # Nothing gathers for long before it is written.
    monkeypatch.setattr(bodies, "PIECE", 100_000)
    monkeypatch.setattr(bodies, "MOST", 100_000)
    return 2_000_000


def told(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["tus-resumable"] == "1.0.0"
    return response.status_code, response.json()["code"]


# Core and creation


@pytest.mark.embedded
def test_an_upload_in_pieces_becomes_an_artifact_like_any_other(
    either_service: Service, tmp_path: Path, small_parts: int
) -> None:
    sender = Sender(either_service.client)
    begun = sender.create(len(CONTENT), name="Bilder \u00e4.idx", sha256=DIGEST.upper())
    assert (begun.status_code, begun.headers["upload-offset"]) == (201, "0")
    path = begun.headers["location"]
    for start in range(0, len(CONTENT), 4_000_001):
        assert sender.offset(path) == start
        answer = sender.patch(path, start, CONTENT[start:start + 4_000_001])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(min(len(CONTENT), start + 4_000_001)))
    artifact_id = answer.headers["stillhouse-artifact"]
    artifact = Artifact.model_validate(either_service.client.get(f"/artifacts/{artifact_id}").json())
    assert (artifact.kind, artifact.format, artifact.name, artifact.sha256) == (
        "data", "idx", "Bilder \u00e4.idx", DIGEST
    )
    assert artifact.facts["shape"] == [9, 1000, 1000]
    assert either_service.client.get(f"/artifacts/{artifact_id}/content").content == CONTENT
    assert swept_files(either_service, tmp_path) == 1, "its parts are gone"
    assert small_parts < 4_000_001, "or no request would have made several parts"


def test_head_tells_what_is_needed_to_go_on(service: Service, sender: Sender) -> None:
    path = sender.begun(len(CONTENT), name="n")
    sender.patch(path, 0, CONTENT[:10])
    headers = sender.head(path).headers
    told = {name: headers[name] for name in ("tus-resumable", "upload-offset", "upload-length", "cache-control")}
    assert told == {
        "tus-resumable": "1.0.0", "upload-offset": "10", "upload-length": str(len(CONTENT)),
        "cache-control": "no-store",
    }
    assert headers["upload-metadata"] == metadata(kind="data", name="n")
    shown = Upload.model_validate(service.client.get(path).json())
    assert (shown.status, shown.offset, shown.length) == ("receiving", 10, len(CONTENT))
    assert parsedate_to_datetime(headers["upload-expires"]) == shown.expires_at.replace(microsecond=0)


def test_the_first_bytes_may_come_with_the_creation(service: Service, sender: Sender) -> None:
    part = sender.create(len(CONTENT), CONTENT[:1000])
    assert (part.status_code, part.headers["upload-offset"]) == (201, "1000")
    whole = sender.create(len(CONTENT), CONTENT)
    assert service.client.get(f"/artifacts/{whole.headers['stillhouse-artifact']}").json()["sha256"] == DIGEST


@pytest.mark.embedded
def test_equal_bytes_of_an_owner_are_kept_once(service: Service, sender: Sender, tmp_path: Path) -> None:
    first = service.uploaded(CONTENT)
    second = sender.create(len(CONTENT), CONTENT).headers["stillhouse-artifact"]
    assert first != second
    assert (count(service, BlobRow), swept_files(service, tmp_path)) == (1, 1)


def test_anybody_may_ask_what_is_spoken(service: Service) -> None:
    with service.client_with(None) as nobody:
        answer = nobody.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation", "creation-with-upload", "checksum", "expiration", "termination"
    }
    assert answer.headers["tus-max-size"] == str(service.parts.settings.max_upload_bytes)
    assert "sha1" in answer.headers["tus-checksum-algorithm"]


def test_a_post_may_stand_for_another_method(sender: Sender) -> None:
    path = sender.begun(len(CONTENT))
    added = sender.client.post(path, content=CONTENT[:5], headers={
        **VERSION, "X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    })
    assert (added.status_code, sender.offset(path)) == (204, 5)
    assert sender.client.post(path, headers=VERSION).status_code == 405


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "unsupported_tus_version"),
        ({"Upload-Length": ""}, 422, "invalid_request"),
        ({"Upload-Length": "-1"}, 422, "invalid_request"),
        ({"Upload-Length": "9" * 30}, 422, "invalid_request"),
        ({"Upload-Length": "0"}, 422, "empty_upload"),
        ({"Upload-Length": str(2**61)}, 413, "upload_too_large"),
        ({"Upload-Defer-Length": "1"}, 422, "invalid_request"),
        ({"Upload-Metadata": ""}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="model")}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="data", format="safetensors")}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="data", format="docx")}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="data", sha256="xyz")}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="data", name="n" * 256)}, 422, "invalid_request"),
        ({"Upload-Metadata": metadata(kind="data") + "," + metadata(kind="data")}, 422, "invalid_request"),
        ({"Upload-Metadata": "kind ==="}, 422, "invalid_request"),
        ({"Upload-Metadata": "kind /w=="}, 422, "invalid_request"),
        ({"Upload-Checksum": "crc32 AAAA"}, 400, "unsupported_checksum"),
    ],
)
def test_a_beginning_that_cannot_be_is_refused(
    service: Service, headers: dict[str, str], status: int, code: str
) -> None:
    usual = {**VERSION, "Upload-Length": "100", "Upload-Metadata": metadata(kind="data")}
    assert told(service.client.post("/uploads", headers={**usual, **headers})) == (status, code)
    assert count(service, UploadRow) == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": ""}, 412, "unsupported_tus_version"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Upload-Offset": "x"}, 422, "invalid_request"),
        ({"Upload-Offset": "9"}, 409, "upload_offset_mismatch"),
        ({"Upload-Checksum": "sha1 !"}, 422, "invalid_request"),
        ({"Upload-Checksum": "sha1 AAAA"}, 460, "checksum_mismatch"),
        ({"Upload-Checksum": "md4 AAAA"}, 400, "unsupported_checksum"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    service: Service, sender: Sender, tmp_path: Path, headers: dict[str, str], status: int, code: str
) -> None:
    path = sender.begun(100)
    assert told(sender.patch(path, 0, b"12345", **headers)) == (status, code)
    assert sender.offset(path) == 0
    assert is_clean(service, tmp_path)


def test_more_bytes_than_were_announced_are_refused(service: Service, sender: Sender, tmp_path: Path) -> None:
    path = sender.begun(10)

    def unannounced() -> Iterator[bytes]:
        yield from (bytes(5) for _ in range(3))

    assert told(sender.patch(path, 0, bytes(11))) == (413, "upload_too_large")
    answer = service.client.patch(path, content=unannounced(), headers={
        **VERSION, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream",
    })
    assert told(answer) == (413, "upload_too_large")
    assert sender.offset(path) == 0
    assert is_clean(service, tmp_path)


# Checksums


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_bytes_that_meet_their_checksum_count(sender: Sender, algorithm: str, small_parts: int) -> None:
    path = sender.begun(len(CONTENT))
    body = CONTENT[:2 * small_parts + 1]
    assert sender.patch(path, 0, body, **checksum(body, algorithm)).status_code == 204
    assert sender.offset(path) == len(body)


def test_damaged_bytes_do_not_count_however_many(
    service: Service, sender: Sender, tmp_path: Path, small_parts: int
) -> None:
    path = sender.begun(len(CONTENT))
    body = CONTENT[:2 * small_parts + 1]
    assert told(sender.patch(path, 0, body, **checksum(body + b"x"))) == (460, "checksum_mismatch")
    assert sender.offset(path) == 0
    assert is_clean(service, tmp_path)


# Broken connections, other processes


@pytest.mark.parametrize("num_bytes", [1, 1_000_000, 5_000_000])
def test_what_came_before_a_connection_broke_is_kept(
    service: Service, sender: Sender, num_bytes: int, small_parts: int  # noqa: ARG001 - several of them
) -> None:
    path = sender.begun(len(CONTENT), sha256=DIGEST)
    with raw_patch(service, path, 0, len(CONTENT)) as connection:
        connection.sendall(CONTENT[:num_bytes])
        wait_until(lambda: holders(service) == {True})
    wait_until(lambda: holders(service) == {False})
    kept = sender.offset(path)
    assert num_bytes - kept <= HTTP_SERVER_BUFFER, "what the server never handed on is lost with the connection"
    done = sender.patch(path, kept, CONTENT[kept:])
    assert service.client.get(f"/artifacts/{done.headers['stillhouse-artifact']}").json()["sha256"] == DIGEST


def test_another_process_goes_on_after_the_first_has_ended(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    with running_service(database_url, broker_url, tmp_path) as first:
        path = Sender(first.client).begun(len(CONTENT), sha256=DIGEST)
        Sender(first.client).patch(path, 0, CONTENT[:3_000_000])
    with running_service(database_url, broker_url, tmp_path) as second:
        sender = Sender(second.client)
        assert sender.offset(path) == 3_000_000
        done = sender.patch(path, 3_000_000, CONTENT[3_000_000:])
        assert second.client.get(f"/artifacts/{done.headers['stillhouse-artifact']}").json()["sha256"] == DIGEST


def test_one_request_at_a_time_adds_bytes(either_service: Service, small_parts: int) -> None:
    sender = Sender(either_service.client)
    path = sender.begun(len(CONTENT))
    with raw_patch(either_service, path, 0, len(CONTENT)) as slow:
        slow.sendall(CONTENT[:small_parts + 1_500_000])
        wait_until(lambda: sender.offset(path) == small_parts)
        refused = sender.patch(path, small_parts, CONTENT[small_parts:])
        assert told(refused) == (423, "upload_locked")
        assert refused.headers["retry-after"]
        slow.sendall(CONTENT[small_parts + 1_500_000:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 204 ")
    assert sender.offset(path) == len(CONTENT)


@pytest.mark.embedded
def test_a_request_that_lost_its_hold_counts_for_nothing_and_the_new_one_goes_on(
    either_service: Service, tmp_path: Path, small_parts: int
) -> None:
    sender = Sender(either_service.client)
    path = sender.begun(len(CONTENT), sha256=DIGEST)
    with raw_patch(either_service, path, 0, len(CONTENT)) as silent:
        silent.sendall(CONTENT[:small_parts + 1_500_000])
        wait_until(lambda: sender.offset(path) == small_parts)
        set_columns(either_service, held_until=now(-1))
        with raw_patch(either_service, path, small_parts, len(CONTENT) - small_parts) as other:
            other.sendall(CONTENT[small_parts:small_parts + 100])
            wait_until(lambda: holders(either_service) == {True})
            silent.sendall(CONTENT[small_parts + 1_500_000:])
            answer = silent.recv(65536)
            assert answer.startswith(b"HTTP/1.1 423 "), answer
            other.sendall(CONTENT[small_parts + 100:])
            assert other.recv(65536).startswith(b"HTTP/1.1 204 ")
    artifact_id = either_service.client.get(path).json()["artifact_id"]
    assert either_service.client.get(f"/artifacts/{artifact_id}/content").content == CONTENT
    assert swept_files(either_service, tmp_path) == 1


def holders(service: Service) -> set[bool]:
    """Whether each upload is held by a request that lives."""
    with service.parts.db.reading() as session:
        return set(session.scalars(select((UploadRow.held_until > now()) & UploadRow.holder.is_not(None))))


def test_a_whole_upload_whose_process_died_is_finished_by_whoever_asks(service: Service, sender: Sender) -> None:
    ways = (sender.head, service.client.get, lambda path: sender.patch(path, len(CONTENT), b""))
    for ask in ways:
        path = sender.begun(len(CONTENT))
        sender.patch(path, 0, CONTENT[:-1])
        hold = uploads.hold(
            service.parts.db, owner="default", upload_id=path.rpartition("/")[2], received=len(CONTENT) - 1, hours=1
        )
        last = receiving.Receiving(service.parts.db, service.parts.stores.files, hold)
        last.write(CONTENT[-1:])
        last.close(is_whole=True)
        assert service.client.get(path).json()["status"] == "finishing", "as long as its process may live"
        set_columns(service, held_until=now(-1))
        ask(path)
        shown = service.client.get(path).json()
        assert shown["status"] == "finished"
        assert service.client.get(f"/artifacts/{shown['artifact_id']}").json()["sha256"] == DIGEST


def test_the_last_request_may_be_sent_again(service: Service, sender: Sender) -> None:
    path = sender.create(len(CONTENT), CONTENT).headers["location"]
    again = sender.patch(path, len(CONTENT), b"")
    assert (again.status_code, again.headers["upload-offset"]) == (204, str(len(CONTENT)))
    assert count(service, ArtifactRow) == 1
    assert told(sender.patch(path, 5, b"x")) == (410, "upload_gone")


def test_an_upload_of_too_many_pieces_is_refused(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PARTS", 3)
    path = sender.begun(100)
    for offset in range(3):
        sender.patch(path, offset, b"x")
    assert told(sender.patch(path, 3, b"x")) == (422, "too_many_parts")


# What is wrong with the bytes


@pytest.mark.parametrize(
    ("content", "values", "code"),
    [
        (idx([5, 28, 28])[:-1], {}, "malformed_idx"),
        (idx([5]), {"sha256": "0" * 64}, "digest_mismatch"),
        (idx([5]), {"format": "npz"}, "malformed_npz"),
        (b"\xff" * 100, {"kind": "teacher"}, "malformed_safetensors"),
    ],
)
def test_bytes_that_are_not_what_they_should_be_end_the_upload(
    either_service: Service, tmp_path: Path, content: bytes, values: dict[str, str], code: str
) -> None:
    sender = Sender(either_service.client)
    path = sender.begun(len(content), **values)
    assert told(sender.patch(path, 0, content)) == (422, code)
    shown = Upload.model_validate(either_service.client.get(path).json())
    assert shown.status == "refused"
    assert shown.error is not None
    assert shown.error.code == code
    assert sender.head(path).status_code == 410
    assert told(sender.patch(path, len(content), b"")) == (410, "upload_gone")
    assert is_clean(either_service, tmp_path)


@pytest.mark.embedded
def test_a_full_disk_at_the_end_can_be_tried_again(
    service: Service, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sender.begun(len(CONTENT))
    sender.patch(path, 0, CONTENT[:-1])
    watched = service.parts.stores.files
    assert isinstance(watched, WatchedStore)
    store = watched.inner
    room, calls = store.check_room, 0  # type: ignore[attr-defined]  # a FileStore

    def full_after_the_part() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            monkeypatch.setattr(store, "_min_free_bytes", 2**62)
        room()

    monkeypatch.setattr(store, "check_room", full_after_the_part)
    assert told(sender.patch(path, len(CONTENT) - 1, CONTENT[-1:])) == (507, "storage_full")
    monkeypatch.setattr(store, "_min_free_bytes", 0)
    assert sender.patch(path, len(CONTENT), b"").headers["stillhouse-artifact"]


# Expiration and termination


def test_a_terminated_upload_is_gone_with_its_bytes(either_service: Service, tmp_path: Path) -> None:
    sender = Sender(either_service.client)
    path = sender.begun(len(CONTENT))
    sender.patch(path, 0, CONTENT[:1000])
    assert sender.client.delete(path, headers=VERSION).status_code == 204
    assert sender.head(path).status_code == 404
    assert told(sender.client.delete(path, headers=VERSION)) == (404, "not_found")
    assert count(either_service, UploadRow) == 0
    assert is_clean(either_service, tmp_path)


def test_an_upload_is_terminated_under_a_request_that_adds_to_it(
    either_service: Service, tmp_path: Path, small_parts: int
) -> None:
    sender = Sender(either_service.client)
    path = sender.begun(len(CONTENT))
    with raw_patch(either_service, path, 0, len(CONTENT)) as busy:
        busy.sendall(CONTENT[:small_parts + 1_500_000])
        wait_until(lambda: sender.offset(path) == small_parts)
        assert sender.client.delete(path, headers=VERSION).status_code == 204
        busy.sendall(CONTENT[small_parts + 1_500_000:])
        assert busy.recv(65536).startswith(b"HTTP/1.1 423 ")
    wait_until(lambda: is_clean(either_service, tmp_path))


def test_an_expired_upload_is_not_there_and_is_removed_unless_a_request_is_at_it(
    either_service: Service, tmp_path: Path
) -> None:
    sender, db = Sender(either_service.client), either_service.parts.db
    path = sender.begun(len(CONTENT))
    sender.patch(path, 0, CONTENT[:1000])
    assert uploads.expire(db) == 0
    set_columns(either_service, expires_at=now(-1))
    assert sender.head(path).status_code == 404
    assert told(sender.patch(path, 1000, b"x")) == (404, "not_found")
    set_columns(either_service, holder="somebody", held_until=now(10))
    assert uploads.expire(db) == 0
    set_columns(either_service, held_until=now(-1))
    assert uploads.expire(db) == 1
    assert count(either_service, UploadRow) == 0
    assert is_clean(either_service, tmp_path)


def test_each_byte_prolongs_the_time(service: Service, sender: Sender) -> None:
    path = sender.begun(len(CONTENT))
    set_columns(service, expires_at=now(5))
    sender.patch(path, 0, b"\0")
    with service.parts.db.reading() as session:
        assert session.scalars(select(UploadRow.expires_at > now(23 * 3600))).one()


def test_what_has_become_an_artifact_stays_when_the_upload_goes(service: Service, sender: Sender) -> None:
    done = sender.create(len(CONTENT), CONTENT)
    sender.client.delete(done.headers["location"], headers=VERSION)
    assert service.client.get(f"/artifacts/{done.headers['stillhouse-artifact']}/content").content == CONTENT


def test_another_owners_upload_is_not_there(either_service: Service) -> None:
    path = Sender(either_service.client).begun(10)
    with either_service.new_owner("bob") as bob:
        other = Sender(bob)
        assert other.head(path).status_code == 404
        answers = [bob.get(path), other.patch(path, 0, b"x"), bob.delete(path, headers=VERSION)]
        assert [told(answer) for answer in answers] == [(404, "not_found")] * 3
    with either_service.client_with(None) as nobody:
        assert told(Sender(nobody).patch(path, 0, b"x")) == (401, "unauthenticated")
    assert Sender(either_service.client).offset(path) == 0


# A client that others wrote


@pytest.fixture
def foreign(service: Service) -> TusClient:
    return TusClient(f"http://127.0.0.1:{service.port}/uploads", headers=bearer(ADMIN_KEY))


@pytest.mark.parametrize("with_checksums", [False, True])
def test_a_foreign_client_uploads(service: Service, foreign: TusClient, with_checksums: bool) -> None:
    uploader = foreign.uploader(
        file_stream=io.BytesIO(CONTENT), chunk_size=4_000_000, metadata={"kind": "data", "filename": "x.idx"},
        upload_checksum=with_checksums,
    )
    uploader.upload()
    shown = Upload.model_validate(service.client.get(str(uploader.url)).json())
    assert (shown.status, shown.name) == ("finished", "x.idx")
    assert service.client.get(f"/artifacts/{shown.artifact_id}/content").content == CONTENT


def test_a_foreign_client_resumes_where_another_stopped(service: Service, foreign: TusClient) -> None:
    def uploader(url: str | None = None):  # type: ignore[no-untyped-def]  # tusclient has no types  # noqa: ANN202
        return foreign.uploader(
            file_stream=io.BytesIO(CONTENT), chunk_size=1_000_000, metadata={"kind": "data"}, url=url
        )

    first = uploader()
    first.upload(stop_at=3_000_000)
    second = uploader(first.url)
    assert second.offset == 3_000_000
    second.upload()
    artifact_id = service.client.get(str(first.url)).json()["artifact_id"]
    assert service.client.get(f"/artifacts/{artifact_id}").json()["sha256"] == DIGEST


def test_a_foreign_client_hears_of_refusals(service: Service, foreign: TusClient) -> None:
    with pytest.raises(TusCommunicationError):
        foreign.uploader(file_stream=io.BytesIO(CONTENT), metadata={"kind": "nothing"}).upload()
    with pytest.raises(TusUploadFailed):
        foreign.uploader(file_stream=io.BytesIO(CONTENT[:-1]), metadata={"kind": "data"}).upload()
    assert count(service, ArtifactRow) == 0
