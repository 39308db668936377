"""Uploads and downloads, over real sockets that break."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from stillhouse import Client
from stillhouse.client import JobHandle, ServiceUnreachableError, StillhouseApiError, TransferError
from tests.fixtures.scripted_service import Answer, Reply, ScriptedService, Seen, a_job, as_json, problem

JOB = "job_00000000000000000001"
MODEL = f"/jobs/{JOB}/model"
CONTENT = os.urandom(300_000)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.fixture
def job(service: ScriptedService, client: Client) -> JobHandle:
    service.on("GET", f"/jobs/{JOB}", as_json(a_job(JOB)))
    return client.job(JOB)


def served(*cuts: int | None, content: bytes = CONTENT, etag: str = ETAG) -> list[Answer]:
    """A file that is served in ranges; each answer breaks off after so many bytes."""
    return [_ranged(content, etag, cut) for cut in cuts]


def _ranged(content: bytes, etag: str, cut: int | None) -> Answer:
    def reply(seen: Seen) -> Reply:
        start = int(seen.headers.get("range", "bytes=0-")[6:-1])
        if start == 0 or seen.headers.get("if-range") != etag:
            return Reply(content, 200, {"ETag": etag}, cut)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Reply(content[start:], 206, {"ETag": etag, "Content-Range": span}, cut)

    return reply


def artifact_of(seen: Seen) -> Reply:
    digest = hashlib.sha256(seen.body).hexdigest()
    return as_json({
        "id": "art_00000000000000000001", "kind": seen.query["kind"][0], "name": seen.query["name"][0],
        "format": seen.query["format"][0], "size": len(seen.body), "sha256": digest,
        "created_at": "2026-01-02T03:04:05Z",
    }, 201)


def test_a_whole_file_arrives(service: ScriptedService, job: JobHandle, tmp_path: Path) -> None:
    service.on("GET", MODEL, *served(None))
    moves: list[tuple[int, int | None]] = []
    saved = job.download(tmp_path / "student.zip", progress=lambda done, total: moves.append((done, total)))
    assert saved.read_bytes() == CONTENT
    assert moves[0] == (0, len(CONTENT))
    assert moves[-1] == (len(CONTENT), len(CONTENT))
    assert service.requests("GET", MODEL)[0].query == {"format": ["zip"]}


def test_a_folder_gets_a_file_named_after_the_job(service: ScriptedService, job: JobHandle, tmp_path: Path) -> None:
    service.on("GET", MODEL, *served(None))
    assert job.download(tmp_path, format="onnx") == tmp_path / f"{JOB}.onnx"


def test_a_broken_download_resumes_where_it_broke(service: ScriptedService, job: JobHandle, tmp_path: Path) -> None:
    service.on("GET", MODEL, *served(100_000, 100_000, None))
    assert job.download(tmp_path / "student.zip").read_bytes() == CONTENT
    ranges = [seen.headers.get("range") for seen in service.requests("GET", MODEL)]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_content_that_changed_is_fetched_from_the_start(
    service: ScriptedService, job: JobHandle, tmp_path: Path
) -> None:
    other = os.urandom(50_000)
    changed = served(None, content=other, etag=f'"{hashlib.sha256(other).hexdigest()}"')
    service.on("GET", MODEL, *served(100_000), *changed)
    assert job.download(tmp_path / "student.zip").read_bytes() == other


def test_a_download_that_gains_nothing_is_given_up_and_leaves_nothing(
    service: ScriptedService, job: JobHandle, tmp_path: Path
) -> None:
    service.on("GET", MODEL, *served(1000, 0))
    with pytest.raises(ServiceUnreachableError):
        job.download(tmp_path / "student.zip")
    assert list(tmp_path.iterdir()) == []


def test_damaged_bytes_are_never_a_success(service: ScriptedService, job: JobHandle, tmp_path: Path) -> None:
    service.on("GET", MODEL, Reply(CONTENT[:-1] + b"x", headers={"ETag": ETAG}))
    target = tmp_path / "student.zip"
    target.write_text("the one from before")
    with pytest.raises(TransferError, match="sha256"):
        job.download(target)
    assert target.read_text() == "the one from before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_without_a_digest_is_still_checked_by_its_length(
    service: ScriptedService, job: JobHandle, tmp_path: Path
) -> None:
    service.on("GET", MODEL, Reply(CONTENT, cut_after=1000), Reply(CONTENT))
    assert job.download(tmp_path / "student.zip").read_bytes() == CONTENT


def test_a_model_that_is_not_ready_is_told(service: ScriptedService, job: JobHandle, tmp_path: Path) -> None:
    service.on("GET", MODEL, problem(409, "not_ready", "The job has not produced this yet.", retryable=True))
    with pytest.raises(StillhouseApiError, match="not produced"):
        job.download(tmp_path / "student.zip")
    assert len(service.requests("GET", MODEL)) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_upload_is_checked_and_told(service: ScriptedService, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(CONTENT)
    service.on("POST", "/artifacts", artifact_of)
    moves: list[tuple[int, int | None]] = []
    artifact = client.upload(file, progress=lambda done, total: moves.append((done, total)))
    assert (artifact.kind, artifact.format, artifact.name) == ("teacher", "safetensors", "teacher.safetensors")
    assert moves[-1] == (len(CONTENT), len(CONTENT))
    (sent,) = service.requests("POST", "/artifacts")
    assert sent.headers["content-length"] == str(len(CONTENT))
    assert sent.headers["authorization"] == "Bearer sk_secret"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize(("head", "told"), [(b"PK\x03\x04", "pytorch"), (b"\x80\x02", "safetensors")])
def test_a_checkpoint_is_uploaded_as_what_it_begins_as(
    service: ScriptedService, client: Client, tmp_path: Path, suffix: str, head: bytes, told: str
) -> None:
    file = tmp_path / f"teacher{suffix}"
    file.write_bytes(head + CONTENT)
    service.on("POST", "/artifacts", artifact_of)
    artifact = client.upload(file)
    assert (artifact.kind, artifact.format) == ("teacher", told)


def test_an_upload_is_sent_again_when_the_service_is_busy(
    service: ScriptedService, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "images"
    file.write_bytes(b"\0\0\x08\x01" + CONTENT)
    service.on("POST", "/artifacts", problem(503, "unavailable"), artifact_of)
    assert client.upload(file).kind == "data"
    assert [len(seen.body) for seen in service.requests("POST", "/artifacts")] == [len(CONTENT) + 4] * 2


@pytest.fixture
def known_file(service: ScriptedService, tmp_path: Path) -> Path:
    """A file of which the service has the bytes already."""
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(CONTENT)
    query = {"kind": ["teacher"], "name": ["old"], "format": ["safetensors"]}
    stored = json.loads(artifact_of(Seen("POST", "/artifacts", query, {}, CONTENT)).body)
    service.on("GET", "/artifacts", as_json({"data": [stored], "has_more": False, "next_cursor": None}))
    return file


def test_bytes_that_the_service_has_are_not_sent(service: ScriptedService, client: Client, known_file: Path) -> None:
    service.on("POST", "/artifacts", lambda seen: artifact_of(replace(seen, body=CONTENT)))
    moves: list[tuple[int, int | None]] = []
    artifact = client.upload(known_file, progress=lambda done, total: moves.append((done, total)))
    assert (artifact.size, artifact.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    (sent,) = service.requests("POST", "/artifacts")
    assert (sent.body, sent.query["sha256"]) == (b"", [hashlib.sha256(CONTENT).hexdigest()])
    assert moves == [(len(CONTENT), len(CONTENT))]
    (asked,) = service.requests("GET", "/artifacts")
    assert asked.query == {"kind": ["teacher"], "size": [str(len(CONTENT))]}


@pytest.mark.parametrize("code", ["unknown_content", "empty_upload"])
def test_bytes_that_are_gone_meanwhile_are_sent(
    service: ScriptedService, client: Client, known_file: Path, code: str
) -> None:
    service.on("POST", "/artifacts", problem(422, code), artifact_of)
    client.upload(known_file)
    assert [seen.body for seen in service.requests("POST", "/artifacts")] == [b"", CONTENT]


def test_other_bytes_of_the_same_length_are_sent(
    service: ScriptedService, client: Client, known_file: Path
) -> None:
    known_file.write_bytes(CONTENT[::-1])
    service.on("POST", "/artifacts", artifact_of)
    client.upload(known_file)
    assert [seen.body for seen in service.requests("POST", "/artifacts")] == [CONTENT[::-1]]


def test_a_key_that_may_not_read_sends(service: ScriptedService, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(CONTENT)
    service.on("GET", "/artifacts", problem(403, "forbidden"))
    service.on("POST", "/artifacts", artifact_of)
    assert client.upload(file).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_bytes_that_the_service_stored_wrongly_are_noticed(
    service: ScriptedService, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(CONTENT)

    def damaged(seen: Seen) -> Reply:
        told = json.loads(artifact_of(seen).body)
        return as_json({**told, "sha256": "0" * 64}, 201)

    service.on("POST", "/artifacts", damaged)
    with pytest.raises(TransferError, match="other bytes"):
        client.upload(file)


def test_a_refused_upload_is_told(service: ScriptedService, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "teacher.pt"
    file.write_bytes(b"PK\x03\x04 pickle inside")
    service.on("POST", "/artifacts", problem(422, "pickle_refused", "The file is a Python pickle."))
    with pytest.raises(StillhouseApiError, match="pickle"):
        client.upload(file)
