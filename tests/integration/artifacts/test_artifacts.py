"""Artifacts come in whole or not at all, share bytes within one owner, and leave nothing behind."""

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, update
from sqlalchemy.exc import StatementError

from app.artifacts import queries, service
from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.kit.clock import now
from app.kit.database import Database
from app.storage.base import BLOCK
from app.storage.database import DatabaseStore
from app.storage.files import FileStore
from app.storage.models import BlobChunkRow
from app.storage.stores import Stores
from stillhouse.contract.failures import (
    ArtifactInUseError,
    DigestMismatchError,
    EmptyUploadError,
    NotFoundError,
    StorageFullError,
    UnknownArtifactError,
    UploadIncompleteError,
)
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.waiting import wait_until, waits_for_lock

BIG = bytes(range(256)) * 4096 * 2 + b"and a bit"


def kept_bytes(db: Database, folder: Path) -> set[str]:
    """Keys of everything that lies in either store."""
    with db.reading() as session:
        chunks = set(session.scalars(select(BlobChunkRow.blob_id)))
        loose = set(session.scalars(select(LooseBlobRow.id)))
    assert not loose
    return chunks | {path.name for path in (folder / "blobs").rglob("*") if path.is_file()}


def blob_ids(db: Database) -> set[str]:
    with db.reading() as session:
        return set(session.scalars(select(BlobRow.id)))


def read(stores: Stores, artifact: ArtifactRow, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(service.content(stores, artifact, start, end))


@pytest.fixture(params=["files", "database"])
def into(request: pytest.FixtureRequest) -> service.StoreName:
    name: service.StoreName = request.param
    return name


def test_what_comes_in_can_be_read(database: Database, stores: Stores, into: service.StoreName) -> None:
    with service.Intake(database, stores.named(into), owner="ann") as intake:
        for start in range(0, len(BIG), 100_000):
            intake.write(BIG[start:start + 100_000])
        made = intake.finish(kind="teacher", name="t\u00e9acher", format="safetensors", facts={"shapes": [[1, 2]]})
    with database.reading() as session:
        artifact = service.find(session, "ann", made.id)
    assert (artifact.kind, artifact.name, artifact.format) == ("teacher", "t\u00e9acher", "safetensors")
    assert (artifact.size, artifact.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert artifact.facts == {"shapes": [[1, 2]]}
    assert artifact.created_at == made.created_at
    assert artifact.blob.store == into
    assert read(stores, artifact) == BIG


@pytest.mark.parametrize(("start", "end"), [
    (0, 1), (5, 5), (0, BLOCK), (BLOCK - 1, BLOCK + 1), (BLOCK, 2 * BLOCK), (3, len(BIG) - 3), (len(BIG) - 1, None),
    (len(BIG), None), (7, 10**12),
])
def test_ranges(
    database: Database, stores: Stores, into: service.StoreName, start: int, end: int | None
) -> None:
    artifact = upload(database, stores, BIG, into=into)
    assert read(stores, artifact, start, end) == BIG[start:end]
    assert all(len(block) <= BLOCK for block in service.content(stores, artifact, start, end))


def test_what_was_written_can_be_inspected_before_it_is_kept(
    database: Database, stores: Stores, into: service.StoreName
) -> None:
    with service.Intake(database, stores.named(into), owner="ann") as intake:
        intake.write(BIG)
        with intake.reopen() as file:
            file.seek(-5, os.SEEK_END)
            assert file.read() == BIG[-5:]
            file.seek(BLOCK - 2)
            assert file.read(4) == BIG[BLOCK - 2:BLOCK + 2]


def test_a_local_file_comes_in(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    for source in (path, BytesIO(BIG)):
        artifact = service.store_file(
            database, stores, source, owner="ann", kind="model", name="m", format="onnx", job_id=None, into=into,
        )
        assert read(stores, artifact) == BIG


# Sharing


@pytest.mark.embedded
def test_an_owners_equal_bytes_are_kept_once(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    first, second = (upload(database, stores, BIG, into=into) for _ in range(2))
    assert first.id != second.id
    assert first.blob_id == second.blob_id
    assert kept_bytes(database, tmp_path) == blob_ids(database) == {first.blob_id}


@pytest.mark.embedded
def test_owners_share_nothing(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    first, second = (upload(database, stores, BIG, into=into, owner=owner) for owner in ("ann", "bob"))
    assert kept_bytes(database, tmp_path) == {first.blob_id, second.blob_id}
    assert len({first.blob_id, second.blob_id}) == 2


@pytest.mark.embedded
def test_stores_share_nothing(database: Database, stores: Stores, tmp_path: Path) -> None:
    first, second = upload(database, stores, into="files"), upload(database, stores, into="database")
    assert kept_bytes(database, tmp_path) == {first.blob_id, second.blob_id}


@pytest.mark.embedded
def test_bytes_leave_with_the_last_artifact(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    first, second = (upload(database, stores, BIG, into=into) for _ in range(2))
    service.delete(database, stores, owner="ann", artifact_id=first.id)
    assert read(stores, second) == BIG
    service.delete(database, stores, owner="ann", artifact_id=second.id)
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()
    again = upload(database, stores, BIG, into=into)
    assert again.blob_id != first.blob_id
    assert read(stores, again) == BIG


@pytest.mark.embedded
def test_equal_bytes_may_come_and_go_at_once(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    def come_and_go(number: int) -> None:
        artifact = upload(database, stores, b"the same", into=into)
        assert read(stores, artifact) == b"the same"
        if number % 4:
            service.delete(database, stores, owner="ann", artifact_id=artifact.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(48)))
    service.sweep(database, stores)
    with database.reading() as session:
        left = session.scalars(select(ArtifactRow)).all()
    assert len(left) == 12
    assert {artifact.blob_id for artifact in left} == blob_ids(database) == kept_bytes(database, tmp_path)
    assert {read(stores, artifact) for artifact in left} == {b"the same"}


# Nothing half-written


@pytest.mark.embedded
def test_an_aborted_upload_leaves_nothing(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    def cut_off() -> None:
        with service.Intake(database, stores.named(into), owner="ann") as intake:
            intake.write(BIG)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        cut_off()
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()


@pytest.mark.parametrize(("content", "sha256", "error"), [
    (b"", None, EmptyUploadError), (b"x", "0" * 64, DigestMismatchError),
])
@pytest.mark.embedded
def test_a_refused_upload_leaves_nothing(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path,
    content: bytes, sha256: str | None, error: type[Exception],
) -> None:
    with service.Intake(database, stores.named(into), owner="ann") as intake:
        intake.write(content)
        with pytest.raises(error):
            intake.finish(kind="data", name="n", format="idx", sha256=sha256)
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()


def test_a_digest_may_be_in_capitals(database: Database, stores: Stores) -> None:
    with service.Intake(database, stores.files, owner="ann") as intake:
        intake.write(b"x")
        intake.finish(kind="data", name="n", format="idx", sha256=hashlib.sha256(b"x").hexdigest().upper())


@pytest.mark.embedded
def test_an_upload_that_cannot_be_noted_leaves_nothing(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    with service.Intake(database, stores.named(into), owner="ann") as intake:
        intake.write(BIG)
        with pytest.raises((ValueError, StatementError), match="JSON"):
            intake.finish(kind="data", name="n", format="idx", facts={"mean": float("nan")})
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()


@pytest.mark.embedded
def test_what_a_dead_writer_left_is_swept(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    intake = service.Intake(database, stores.named(into), owner="ann").__enter__()
    intake.write(BIG)
    assert service.sweep(database, stores) == 0
    with database.writing() as session:
        session.execute(update(LooseBlobRow).values(kept_until=now(-1)))
    assert service.sweep(database, stores) == 1
    assert kept_bytes(database, tmp_path) == set()
    with pytest.raises((UploadIncompleteError, FileNotFoundError)):
        intake.finish(kind="data", name="n", format="idx")
    intake.__exit__()
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()


@pytest.mark.embedded
def test_a_deletion_that_was_cut_off_is_made_up_for(
    database: Database, stores: Stores, into: service.StoreName, tmp_path: Path
) -> None:
    artifact = upload(database, stores, BIG, into=into)
    with database.writing() as session:
        service.discard(session, [artifact.id])
    assert blob_ids(database) == set()
    assert service.sweep(database, stores) == 1
    assert kept_bytes(database, tmp_path) == set()


# No room


@pytest.mark.embedded
def test_the_last_room_on_the_disk_is_left_alone(database: Database, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "blobs", min_free_bytes=2**62)
    with pytest.raises(StorageFullError), service.Intake(database, store, owner="ann"):
        pass
    assert kept_bytes(database, tmp_path) == set()


FULL_FOLDER = """
import resource, sys
from app.artifacts.service import Intake
from app.kit.database import Database
from app.storage.files import FileStore
from stillhouse.contract.failures import StorageFullError
database, store = Database(sys.argv[1]), FileStore(__import__("pathlib").Path(sys.argv[2]))
try:
    with Intake(database, store, owner="ann") as intake:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
        for _ in range(8):
            intake.write(bytes(1024 * 1024))
        intake.finish(kind="data", name="n", format="idx")
except StorageFullError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("full")
"""


@pytest.mark.embedded
def test_a_file_that_cannot_grow_is_storage_full(postgres_url: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FULL_FOLDER, postgres_url, tmp_path / "blobs"], check=False, capture_output=True,
        text=True, timeout=60,
    )
    assert (told.stdout, told.stderr) == ("full\n", "")
    database = Database(postgres_url)
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()
    database.dispose()


@pytest.mark.embedded
def test_a_full_folder_is_storage_full(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    unshare = shutil.which("unshare") or pytest.skip("no unshare to mount a small file system with")
    script = FULL_FOLDER.replace("(3_000_000,", "(resource.RLIM_INFINITY,")
    commands = 'mount -t tmpfs -o size=3m none "$3" || exit 77; "$0" -c "$1" "$2" "$3" && find "$3" -type f'
    told = subprocess.run(
        [unshare, "--mount", "--map-root-user", "sh", "-c", commands, sys.executable, script, sqlite_url,
         tmp_path / "blobs"],
        check=False, capture_output=True, text=True, timeout=60,
    )
    if told.returncode in {1, 77}:
        pytest.skip(f"no small file system can be mounted here: {told.stderr.strip()}")
    assert (told.stdout, told.stderr) == ("full\n", "")
    database = Database(sqlite_url)
    assert kept_bytes(database, tmp_path) == blob_ids(database) == set()
    database.dispose()


@pytest.mark.embedded
def test_a_full_database_is_storage_full(sqlite_database: Database, tmp_path: Path) -> None:
    @event.listens_for(sqlite_database.engine, "begin")
    def _bound(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 700")

    stores = Stores(files=FileStore(tmp_path / "blobs"), database=DatabaseStore(sqlite_database))
    with pytest.raises(StorageFullError):
        upload(sqlite_database, stores, BIG * 3, into="database")
    assert kept_bytes(sqlite_database, tmp_path) == blob_ids(sqlite_database) == set()


# In use


def needed(desk: Desk, job_id: str) -> str:
    artifact_id: str = desk.row(job_id).spec["data"]["train"]["inputs"]
    return artifact_id


@pytest.mark.parametrize("status", Status)
def test_what_a_living_job_reads_stays(desk: Desk, status: Status) -> None:
    job_id = desk.submit()
    desk.set(job_id, status=status)
    if status in {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}:
        service.delete(desk.db, desk.stores, owner="ann", artifact_id=needed(desk, job_id))
    else:
        with pytest.raises(ArtifactInUseError, match=job_id):
            service.delete(desk.db, desk.stores, owner="ann", artifact_id=needed(desk, job_id))


def test_what_a_living_job_made_stays(desk: Desk) -> None:
    job_id = desk.submit()
    artifact = upload(desk.db, desk.stores, kind="state", job_id=job_id)
    with pytest.raises(ArtifactInUseError):
        service.delete(desk.db, desk.stores, owner="ann", artifact_id=artifact.id)


def test_another_owners_artifact_is_not_found(desk: Desk) -> None:
    artifact = upload(desk.db, desk.stores, owner="ann")
    with pytest.raises(NotFoundError):
        service.delete(desk.db, desk.stores, owner="bob", artifact_id=artifact.id)
    with desk.db.reading() as session, pytest.raises(NotFoundError):
        service.find(session, "bob", artifact.id)


def test_a_job_that_is_being_submitted_holds_its_artifacts(postgres_desk: Desk) -> None:
    db, stores = postgres_desk.db, postgres_desk.stores
    artifact_id = upload(db, stores).id
    with ThreadPoolExecutor(1) as pool:
        with db.writing() as session:
            job_id = postgres_desk.submit_in(session, artifact_id)
            deleting = pool.submit(service.delete, db, stores, owner="ann", artifact_id=artifact_id)
            wait_until(lambda: waits_for_lock(db))
        with pytest.raises(ArtifactInUseError, match=job_id):
            deleting.result(timeout=20)


def test_a_job_that_comes_too_late_finds_its_artifact_gone(postgres_desk: Desk) -> None:
    db = postgres_desk.db
    artifact_id = upload(db, postgres_desk.stores).id

    def submit() -> None:
        with db.writing() as session:
            postgres_desk.submit_in(session, artifact_id)

    with ThreadPoolExecutor(1) as pool:
        with db.writing() as session:
            service.discard(session, [artifact_id])
            submitting = pool.submit(submit)
            wait_until(lambda: waits_for_lock(db))
        with pytest.raises(UnknownArtifactError):
            submitting.result(timeout=20)


def test_bytes_that_come_again_while_they_leave(postgres_desk: Desk) -> None:
    db, stores = postgres_desk.db, postgres_desk.stores
    first = upload(db, stores)
    with ThreadPoolExecutor(1) as pool:
        with db.writing() as session:
            service.discard(session, [first.id])
            coming = pool.submit(upload, db, stores)
            wait_until(lambda: waits_for_lock(db))
        second = coming.result(timeout=20)
    assert second.blob_id != first.blob_id
    service.sweep(db, stores)
    assert read(stores, second) == b"bytes"


def test_bytes_that_leave_while_they_come_again(postgres_desk: Desk) -> None:
    db, stores = postgres_desk.db, postgres_desk.stores
    first = upload(db, stores)
    with ThreadPoolExecutor(1) as pool:
        with db.writing() as session:
            blob = session.scalars(queries.same_bytes("ann", first.sha256, "files")).one()
            leaving = pool.submit(service.delete, db, stores, owner="ann", artifact_id=first.id)
            wait_until(lambda: waits_for_lock(db))
            session.add(ArtifactRow(
                id="art_2", owner="ann", kind="data", name="n", format="idx", size=5, blob=blob, facts={},
            ))
        leaving.result(timeout=20)
    with db.reading() as session:
        assert read(stores, service.find(session, "ann", "art_2")) == b"bytes"


# Lists


def test_pages_are_whole_when_times_are_equal(database: Database, stores: Stores) -> None:
    made = sorted((upload(database, stores).id for _ in range(5)), reverse=True)
    upload(database, stores, kind="teacher")
    upload(database, stores, owner="bob")
    with database.writing() as session:
        session.execute(update(ArtifactRow).values(created_at=datetime(2030, 1, 1, tzinfo=UTC)))
    found: list[str] = []
    cursor = None
    while True:
        with database.reading() as session:
            part = service.page(session, "ann", kind="data", cursor=cursor, limit=2)
        found += [row.id for row in part.rows]
        cursor = part.next_cursor
        if cursor is None:
            break
    assert found == made
    assert all(row.sha256 for row in part.rows)
