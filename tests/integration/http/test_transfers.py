"""Files up and down by the client against the real service, through a proxy that breaks connections."""

import os
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.kit.clock import now
from app.uploads.models import UploadRow
from stillhouse import Client
from stillhouse.client import ServiceUnreachableError, StillhouseApiError, resumable, transfer
from stillhouse.client.api import Client as ApiClient
from tests.fixtures.cutting_proxy import CuttingProxy
from tests.fixtures.files import idx
from tests.fixtures.service import ADMIN_KEY, Service

CONTENT = idx([9, 1000, 1000])[:16] + os.urandom(9_000_000)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every file counts as large, and is sent in several pieces."""
    monkeypatch.setattr(transfer, "RESUMABLE_BYTES", 1)
    monkeypatch.setattr(resumable, "PIECE_BYTES", 4_000_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.write_bytes(CONTENT)
    return path


def notes(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").rglob("*.json")))


def uploads(service: Service) -> list[UploadRow]:
    with service.parts.db.reading() as session:
        return list(session.scalars(select(UploadRow)))


def test_a_large_file_arrives_through_broken_connections(service: Service, file: Path, tmp_path: Path) -> None:
    moves: list[int] = []
    with (
        CuttingProxy(service.port, [3_000_000, 2_500_000, 1_000_000], counts_down=False).serving() as proxy,
        Client(proxy.url, ADMIN_KEY) as client,
    ):
        artifact = client.upload(file, progress=lambda done, _: moves.append(done))
        assert proxy.num_cut == 3
        assert client.download_artifact(artifact.id, tmp_path / "back").read_bytes() == CONTENT
    (upload,) = uploads(service)
    assert (upload.artifact_id, moves[-1]) == (artifact.id, len(CONTENT))
    assert notes(tmp_path) == 0


def test_another_call_goes_on_where_the_first_was_interrupted(service: Service, file: Path, tmp_path: Path) -> None:
    def interrupt(done: int, _total: int | None) -> None:
        if done > 6_000_000:
            raise KeyboardInterrupt

    with Client(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as first, pytest.raises(KeyboardInterrupt):
        first.upload(file, progress=interrupt)
    assert notes(tmp_path) == 1
    starts: list[int] = []
    with Client(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as second:
        artifact = second.upload(file, progress=lambda done, _: starts.append(done))
    assert starts[0] >= 4_000_000
    (upload,) = uploads(service)
    assert upload.artifact_id == artifact.id
    assert notes(tmp_path) == 0


def test_an_upload_that_has_expired_meanwhile_begins_anew(service: Service, file: Path) -> None:
    def interrupt(done: int, _total: int | None) -> None:
        if done > 6_000_000:
            raise KeyboardInterrupt

    with ApiClient(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as client:
        with pytest.raises(KeyboardInterrupt):
            client.upload(file, progress=interrupt)
        with service.parts.db.writing() as session:
            session.execute(update(UploadRow).values(expires_at=now(-1)))
        assert client.upload(file).size == len(CONTENT)


def test_a_large_file_that_is_stored_is_not_sent(service: Service, file: Path) -> None:
    with Client(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as client:
        first, second = client.upload(file), client.upload(file)
    assert (first.sha256, first.id != second.id) == (second.sha256, True)
    assert len(uploads(service)) == 1


def test_a_large_file_that_is_refused_is_told_each_time(service: Service, file: Path) -> None:
    file.write_bytes(CONTENT[:-1])
    with Client(f"http://127.0.0.1:{service.port}", ADMIN_KEY) as client:
        for _ in range(2):
            with pytest.raises(StillhouseApiError) as told:
                client.upload(file)
            assert told.value.code == "malformed_idx"


def test_a_download_arrives_whole_or_not_at_all_however_often_it_is_cut(
    service: Service, tmp_path: Path
) -> None:
    artifact_id = service.uploaded(CONTENT)
    target = tmp_path / "back"
    with (
        CuttingProxy(service.port, [2_000_000, 3_000_000, 700_000]).serving() as proxy,
        Client(proxy.url, ADMIN_KEY) as client,
    ):
        assert client.download_artifact(artifact_id, target).read_bytes() == CONTENT
        assert proxy.num_cut == 3
        target.unlink()
        proxy.cuts = [1_000_000] + [0] * 20
    with (
        CuttingProxy(service.port, [1_000_000] + [0] * 50).serving() as proxy, Client(proxy.url, ADMIN_KEY) as client,
    ):
        with pytest.raises(ServiceUnreachableError):
            client.download_artifact(artifact_id, target)
        assert not target.exists()
