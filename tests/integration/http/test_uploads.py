import hashlib
import io
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from sqlalchemy import func, select

from app.artifacts import service as artifacts
from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.http.bodies import MOST
from app.jobs import life
from app.soft_labels import service as soft_labels
from stillhouse.contract.events import SoftLabelsSaved
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.resources import Artifact
from tests.fixtures.files import gzipped_idx, idx, npy, npz, safetensors
from tests.fixtures.service import ADMIN_KEY, Service, running_service
from tests.fixtures.waiting import wait_until


def num_rows(service: Service) -> int:
    with service.parts.db.reading() as session:
        return sum(
            session.scalars(select(func.count()).select_from(table)).one()
            for table in (ArtifactRow, BlobRow, LooseBlobRow)
        )


def num_files(tmp_path: Path) -> int:
    return sum(path.is_file() for path in (tmp_path / "blobs").rglob("*"))


def is_clean(service: Service, tmp_path: Path) -> bool:
    return num_rows(service) == 0 and num_files(tmp_path) == 0


def test_an_upload_is_stored_described_and_found_again(either_service: Service) -> None:
    content = gzipped_idx([5, 28, 28])
    response = either_service.upload(content, name="Bilder \u00e4.gz", sha256=hashlib.sha256(content).hexdigest())
    assert response.status_code == 201
    artifact = Artifact.model_validate(response.json())
    assert response.headers["location"] == f"/artifacts/{artifact.id}"
    assert (artifact.kind, artifact.format, artifact.name, artifact.size) == (
        "data", "idx", "Bilder \u00e4.gz", len(content)
    )
    assert artifact.facts == {"dtype": "uint8", "shape": [5, 28, 28], "format": "idx", "is_gzipped": True}
    assert Artifact.model_validate(either_service.client.get(response.headers["location"]).json()) == artifact
    assert either_service.client.get("/artifacts").json()["data"] == [response.json()]


def test_bytes_that_are_stored_are_an_artifact_again_without_being_sent(either_service: Service) -> None:
    content = idx([5, 28, 28])
    digest = hashlib.sha256(content).hexdigest()
    first = either_service.upload(content, name="first").json()
    again = either_service.upload(b"", name="again", sha256=digest.upper())
    assert again.status_code == 201
    same = {name: again.json()[name] for name in ("kind", "format", "size", "sha256", "facts")}
    assert same == {name: first[name] for name in same}
    assert (again.json()["name"], again.json()["id"] != first["id"]) == ("again", True)
    either_service.client.delete(f"/artifacts/{first['id']}")
    assert either_service.client.get(f"/artifacts/{again.json()['id']}/content").content == content


def test_bytes_that_others_have_are_unknown(service: Service) -> None:
    content = idx([5, 28, 28])
    digest = hashlib.sha256(content).hexdigest()
    key = service.client.post("/keys", json={"name": "bea", "owner": "bea"}).json()["secret"]
    assert service.upload(content).status_code == 201
    others = service.client.post(
        "/artifacts", params={"kind": "data", "sha256": digest}, headers={"Authorization": f"Bearer {key}"},
    )
    as_teacher = service.upload(b"", kind="teacher", sha256=digest)
    as_npz = service.upload(b"", format="npz", sha256=digest)
    refused = [(response.status_code, response.json()["code"]) for response in (others, as_teacher, as_npz)]
    assert refused == [(422, "unknown_content")] * 3


def test_artifacts_of_one_size_are_listed(service: Service) -> None:
    small, big = (service.upload(idx([count])).json() for count in (5, 6))
    listed = service.client.get("/artifacts", params={"size": big["size"]}).json()["data"]
    assert (listed, small["size"] != big["size"]) == ([big], True)


def test_a_checkpoint_of_pytorch_is_stored_as_one(service: Service) -> None:
    content = io.BytesIO()
    torch.save({"w": torch.ones(2), "b": torch.ones(1)}, content)
    guessed, named = (
        service.upload(content.getvalue(), kind="teacher", **more).json() for more in ({}, {"format": "pytorch"})
    )
    assert guessed["format"] == named["format"] == "pytorch"
    assert guessed["facts"] == {"format": "pytorch", "num_tensors": 2}


def test_a_body_of_unknown_length_and_many_pieces_arrives_whole(service: Service) -> None:
    content = idx([MOST // 1000 * 3, 1000])

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 70_001):
            yield content[start:start + 70_001]

    response = service.client.post("/artifacts", params={"kind": "data"}, content=chunks())
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "params", "status", "code"),
    [
        (safetensors()[:-1], {"kind": "teacher"}, 422, "malformed_safetensors"),
        (b"\xff" * 100, {"kind": "teacher"}, 422, "malformed_safetensors"),
        (pickle.dumps({"w": [1.0]}), {"kind": "teacher"}, 422, "pickle_refused"),
        (npz({"data": b"x"}, suffix="/data.pkl"), {"kind": "teacher"}, 422, "pickle_refused"),
        (npz({"x": npy([1])}), {"kind": "teacher"}, 422, "malformed_pytorch"),
        (safetensors(), {"kind": "teacher", "format": "pytorch"}, 422, "malformed_pytorch"),
        (idx([5]), {"kind": "data", "format": "pytorch"}, 422, "invalid_request"),
        (npz({"x": npy([1], "|O", data=b"12345678")}), {"kind": "data"}, 422, "pickle_refused"),
        (b"", {"kind": "data"}, 422, "empty_upload"),
        (b"", {"kind": "data", "sha256": "0" * 64}, 422, "unknown_content"),
        (idx([0, 28, 28]), {"kind": "data"}, 422, "empty_data"),
        (idx([5, 28, 28])[:-1], {"kind": "data"}, 422, "malformed_idx"),
        (b"PK\x03\x04xxxx", {"kind": "data"}, 422, "malformed_npz"),
        (idx([5]), {"kind": "data", "format": "npz"}, 422, "malformed_npz"),
        (idx([5]), {"kind": "data", "sha256": "0" * 64}, 422, "digest_mismatch"),
        (idx([5]), {"kind": "data", "sha256": "xyz"}, 422, "invalid_request"),
        (idx([5]), {"kind": "data", "format": "safetensors"}, 422, "invalid_request"),
        (idx([5]), {"kind": "model"}, 422, "invalid_request"),
        (idx([5]), {"kind": "data", "name": ""}, 422, "invalid_request"),
    ],
)
def test_a_refused_upload_is_told_why_and_leaves_nothing(
    service: Service, tmp_path: Path, content: bytes, params: dict[str, str], status: int, code: str
) -> None:
    response = service.upload(content, **params)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert is_clean(service, tmp_path)


@pytest.fixture
def small_service(sqlite_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    with running_service(sqlite_url, broker_url, tmp_path, max_upload_bytes=3 * MOST) as running:
        yield running


def raw_upload(service: Service, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)
    connection.sendall(
        f"POST /artifacts?kind=data HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    return connection


def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(small_service: Service, tmp_path: Path) -> None:
    with raw_upload(small_service, 3 * MOST + 1) as connection:
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"upload_too_large"' in answer
    assert is_clean(small_service, tmp_path)


def test_a_body_that_turns_out_too_large_is_refused_on_its_way(small_service: Service, tmp_path: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1000 * MOST:
            sent += MOST
            yield bytes(MOST)

    with small_service.client.stream("POST", "/artifacts", params={"kind": "data"}, content=endless()) as response:
        assert response.status_code == 413
        assert "upload_too_large" in response.read().decode()
    wait_until(lambda: is_clean(small_service, tmp_path))


@pytest.mark.embedded
def test_an_upload_cut_midway_leaves_nothing(service: Service, tmp_path: Path) -> None:
    with raw_upload(service, 10 * MOST) as connection:
        connection.sendall(bytes(2 * MOST))
        wait_until(lambda: num_files(tmp_path) > 0)
    wait_until(lambda: is_clean(service, tmp_path))
    assert service.client.get("/artifacts").json()["data"] == []


def test_a_full_disk_is_told_and_leaves_nothing(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, broker_url, tmp_path, min_free_bytes=2**60) as full:
        response = full.upload(idx([5]))
        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert response.json()["blame"] == "infrastructure"
        assert is_clean(full, tmp_path)


def test_lists_are_paged_and_filtered_by_kind(service: Service) -> None:
    ids = [service.uploaded(idx([number])) for number in range(1, 6)]
    service.uploaded(safetensors(), kind="teacher")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, str | int] = {"kind": "data", "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = service.client.get("/artifacts", params=params).json()
        seen += [artifact["id"] for artifact in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_a_deleted_artifact_is_gone_with_its_bytes(service: Service, tmp_path: Path) -> None:
    artifact_id = service.uploaded(idx([5]))
    deleted = service.client.delete(f"/artifacts/{artifact_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert is_clean(service, tmp_path)
    assert service.client.get(f"/artifacts/{artifact_id}").status_code == 404
    assert service.client.delete(f"/artifacts/{artifact_id}").status_code == 404


def test_an_artifact_that_a_job_needs_is_not_deleted(service: Service) -> None:
    spec = service.spec()
    job_id = service.client.post("/jobs", json=spec).json()["id"]
    path = f"/artifacts/{spec['teacher']['artifact']}"
    refused = service.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "artifact_in_use")
    assert job_id in refused.json()["detail"]
    service.client.post(f"/jobs/{job_id}/cancel")
    assert service.client.delete(path).status_code == 204


def test_soft_labels_tell_what_they_cost_and_saved_and_are_not_deleted_while_in_use(either_service: Service) -> None:
    service, key = either_service, "0" * 64
    service.submitted()
    maker = service.claim()
    with artifacts.Intake(service.parts.db, service.parts.stores.files, owner=maker.owner) as intake:
        intake.write(b"rows")
        event = SoftLabelsSaved(key=key, split="train", view=2, shard=1, num_rows=7, seconds=3.0, file="x")
        shard = intake.finish(
            kind="soft_labels", name="shard", format="safetensors", facts=soft_labels.facts(event),
            job_id=maker.job_id,
        )
    life.save_soft_labels(service.parts.db, maker, event, shard.id)
    life.fail(service.parts.db, maker, DivergedError().as_failure())
    service.submitted()
    user = service.claim()
    life.lend(service.parts.db, user, [key], 1)
    (told,) = service.client.get("/artifacts", params={"kind": "soft_labels"}).json()["data"]
    facts = told["facts"]
    assert facts.pop("last_used_at")
    assert facts == {
        "key": key, "split": "train", "view": 2, "shard": 1, "num_rows": 7, "seconds": 3.0, "num_uses": 1,
        "seconds_saved": 3.0,
    }
    assert (told["kind"], told["job_id"]) == ("soft_labels", maker.job_id)
    assert service.client.get(f"/artifacts/{shard.id}").json()["facts"]["num_uses"] == 1
    refused = service.client.delete(f"/artifacts/{shard.id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "artifact_in_use")
    assert user.job_id in refused.json()["detail"]
    life.fail(service.parts.db, user, DivergedError().as_failure())
    assert service.client.delete(f"/artifacts/{shard.id}").status_code == 204
    assert service.client.get("/artifacts", params={"kind": "soft_labels"}).json()["data"] == []


def test_another_owners_artifact_is_not_there(either_service: Service) -> None:
    artifact_id = either_service.uploaded(idx([5]))
    with either_service.new_owner("bob") as bob:
        answers: list[httpx.Response] = [
            bob.get(f"/artifacts/{artifact_id}"), bob.get(f"/artifacts/{artifact_id}/content"),
            bob.delete(f"/artifacts/{artifact_id}"),
        ]
        assert [answer.json()["code"] for answer in answers] == ["not_found"] * 3
        assert bob.get("/artifacts").json()["data"] == []
    assert either_service.client.get(f"/artifacts/{artifact_id}").status_code == 200
