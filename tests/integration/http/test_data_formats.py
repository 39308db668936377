"""Every format of data goes in by `POST /artifacts` and into a job by `POST /jobs`."""

import io
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.fixtures.archives import encoded, noise, pack
from tests.fixtures.service import Service

IMAGES = [encoded(noise(8, 8, seed=number)) for number in range(8)]


def saved(folder: Path) -> bytes:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": image, "path": None} for image in IMAGES], "label": [0, 1] * 4}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder / "ds")
    return Path(shutil.make_archive(str(folder / "ds"), "zip", folder, "ds")).read_bytes()


def content_of(kind: str, folder: Path) -> bytes:
    if kind == "csv":
        return b"age,city,label\n1,Rome,a\n2,Oslo,b\n"
    if kind == "images":
        return pack({f"{'ab'[number % 2]}/{number}.png": image for number, image in enumerate(IMAGES)}, "tar.gz")
    if kind == "hugging_face":
        return saved(folder)
    content = io.BytesIO()
    parquet.write_table(pa.table({"image": IMAGES, "label": [0, 1] * 4}), content)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "images", "hugging_face", "csv"])
@pytest.mark.parametrize("is_told", [False, True])
def test_a_format_is_recognised_described_and_used(
    service: Service, tmp_path: Path, kind: str, is_told: bool
) -> None:
    response = service.upload(content_of(kind, tmp_path), **({"format": kind} if is_told else {}))
    assert response.status_code == 201, response.text
    artifact = response.json()
    assert (artifact["format"], artifact["facts"]["format"]) == (kind, kind)
    split: dict[str, Any] = {"files": artifact["id"]} if kind == "parquet" else {"artifact": artifact["id"]}
    teacher = {"kind": "train", "architecture": {"kind": "mlp"}}
    sent = service.client.post("/jobs", json=service.spec(data={"kind": kind, "train": split}, teacher=teacher))
    assert sent.status_code == 202, sent.text


@pytest.mark.parametrize(
    ("content", "params", "code"),
    [
        (b"PAR1" + bytes(30) + b"PAR1", {}, "malformed_parquet"),
        (b"a,b\n1,\xff\n", {"format": "csv"}, "malformed_csv"),
        (pack({"a/../../b.png": b""}), {}, "unsafe_archive"),
        (pack({"a/b.png": bytes(2**27)}, "tar.gz"), {}, "archive_too_large"),
        (pack({"a/b.png": bytes(900)})[:1000], {}, "malformed_archive"),
        (pack({"a.arrow": b""}), {}, "malformed_dataset"),
        (pack({"a.txt": b""}), {}, "empty_data"),
        (b"a,b\n", {}, "empty_data"),
    ],
)
def test_a_refused_file_is_told_by_its_code(
    service: Service, content: bytes, params: dict[str, str], code: str
) -> None:
    response = service.upload(content, **params)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_a_column_that_is_not_there_is_told_at_submission(service: Service, tmp_path: Path) -> None:
    artifact = service.uploaded(content_of("csv", tmp_path))
    data = {"kind": "csv", "train": {"artifact": artifact, "labels": "lable"}}
    problem = service.client.post("/jobs", json=service.spec(data=data)).json()
    assert (problem["code"], problem["param"]) == ("unknown_column", "/data/train/labels")
    assert "did you mean `label`" in problem["detail"]
