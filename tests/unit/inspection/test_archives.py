import io
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from app.artifacts.inspection import HuggingFaceFacts, ImagesFacts, inspect
from app.artifacts.inspection import images as images_inspection
from stillhouse.contract.failures import (
    EmptyDataError,
    MalformedArchiveError,
    MalformedDatasetError,
    UnsafeArchiveError,
)
from tests.fixtures.archives import PACKINGS, Packing, pack


def images(content: bytes) -> ImagesFacts:
    facts = inspect(io.BytesIO(content), len(content), "images")
    assert isinstance(facts, ImagesFacts)
    return facts


def saved(content: bytes) -> HuggingFaceFacts:
    facts = inspect(io.BytesIO(content), len(content), "hugging_face")
    assert isinstance(facts, HuggingFaceFacts)
    return facts


@pytest.mark.parametrize("packing", PACKINGS)
def test_images_are_counted_by_folder(packing: Packing) -> None:
    facts = images(pack({
        "train/dog/1.png": b"", "train/cat/2.jpg": b"", "train/cat/3.webp": b"", "notes.txt": b"", "4.JPEG": b"",
    }, packing))
    assert facts.num_images == 4
    assert facts.folders == {"": 1, "train/cat": 2, "train/dog": 1}


def test_a_long_list_of_folders_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_inspection, "MAX_LISTED_FOLDERS", 2)
    assert images(pack({f"{number}/a.png": b"" for number in range(3)})).folders is None


def test_what_is_no_safe_archive_of_images_is_refused() -> None:
    with pytest.raises(EmptyDataError, match="no images"):
        images(pack({"a.txt": b""}))
    with pytest.raises(UnsafeArchiveError):
        images(pack({"cat/../../a.png": b""}))
    with pytest.raises(MalformedArchiveError, match=r"`cat/a\.gif`"):
        images(pack({"cat/a.gif": b""}))
    with pytest.raises(MalformedArchiveError):
        images(b"hello, this is text")


FEATURES = datasets.Features({
    "image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"]), "age": datasets.Value("float32"),
    "vector": datasets.List(datasets.Value("int8"), length=3), "grid": datasets.Array2D((2, 2), "uint8"),
})


def split(count: int) -> datasets.Dataset:
    rows: dict[str, Any] = {
        "image": [{"bytes": b"x", "path": None}] * count, "label": [0] * count, "age": [1.0] * count,
        "vector": [[1, 2, 3]] * count, "grid": [np.zeros((2, 2), np.uint8)] * count,
    }
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def archived(saving: datasets.Dataset | datasets.DatasetDict, folder: Path, form: str, **options: object) -> bytes:
    saving.save_to_disk(folder / "ds", **options)
    return Path(shutil.make_archive(str(folder / "ds"), form, folder, "ds")).read_bytes()


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_what_datasets_saves_is_read(tmp_path: Path, form: str) -> None:
    both = datasets.DatasetDict({"train": split(6), "test": split(2)})
    facts = saved(archived(both, tmp_path, form, num_shards={"train": 3, "test": 1}))
    assert {folder: found.num_files for folder, found in facts.folders.items()} == {"ds/test": 1, "ds/train": 3}
    assert facts.folders["ds/train"].columns == {
        "image": "struct<bytes: binary, path: string>", "label": "int64", "age": "float32", "vector": "list<int8>",
        "grid": "list<list<uint8>>",
    }
    assert facts.folders["ds/train"].label_names == {"label": ["no", "yes"]}


INFO = json.dumps({"features": {"x": {"_type": "Value", "dtype": "int64"}}}).encode()
STATE = json.dumps({"_data_files": [{"filename": "a.arrow"}]}).encode()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.arrow": b""}, "no state.json"),
        ({"state.json": STATE, "a.arrow": b""}, "no dataset_info.json with features"),
        ({"state.json": STATE, "dataset_info.json": b"{}", "a.arrow": b""}, "no dataset_info.json with features"),
        ({"state.json": STATE, "dataset_info.json": b"{", "a.arrow": b""}, "not JSON"),
        ({"state.json": b"[" * 100_000, "dataset_info.json": INFO}, "not JSON"),
        ({"state.json": b"[]", "dataset_info.json": INFO}, "not a JSON object"),
        ({"state.json": STATE, "dataset_info.json": INFO}, "not those that its state.json lists"),
        ({"state.json": b"{}", "dataset_info.json": INFO}, "not those that its state.json lists"),
        ({"state.json": STATE, "a.arrow": b"", "dataset_info.json": json.dumps(
            {"features": {"x": {"_type": "ClassLabel", "names": [1, 2]}}}).encode()}, "features .* damaged"),
    ],
)
def test_what_datasets_did_not_save_is_refused_with_its_reason(files: dict[str, bytes], told: str) -> None:
    with pytest.raises(MalformedDatasetError, match=told):
        saved(pack(files))


def test_columns_of_no_use_are_unknown_and_no_reason_to_refuse() -> None:
    odd: Any = {"_type": "List", "feature": {"_type": "Audio"}}
    for _ in range(50):
        odd = {"_type": "List", "feature": odd}
    info = json.dumps({"features": {"x": odd, "y": 3, "z": [{"_type": "Value", "dtype": "string"}]}}).encode()
    columns = saved(pack({"state.json": STATE, "dataset_info.json": info, "a.arrow": b""})).folders[""].columns
    assert columns["x"].endswith("unknown" + ">" * 16)
    assert (columns["y"], columns["z"]) == ("unknown", "list<string>")


def test_a_saved_split_without_files_is_empty() -> None:
    with pytest.raises(EmptyDataError, match="no samples"):
        saved(pack({"state.json": b'{"_data_files": []}', "dataset_info.json": INFO}))
