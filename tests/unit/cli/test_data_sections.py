"""The formats that name what they hold, on a command line."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from stillhouse.cli.drafting import draft
from stillhouse.cli.exits import UsageError
from stillhouse.cli.shorthand import data_files
from tests.fixtures.archives import PACKINGS, Packing, pack


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.table({"image": [b""], "label": [0]}), path)


def test_one_csv_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('\ufeff"age",Target,y\n1,2,3\n')
    assert data_files(tmp_path / "rows.csv").section == {
        "kind": "csv", "train": {"artifact": tmp_path / "rows.csv", "labels": "Target"}
    }


def test_a_table_whose_labels_nobody_can_tell_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age,city\n1,2\n")
    with pytest.raises(UsageError, match=r"none of the columns of rows\.csv"):
        data_files(tmp_path / "rows.csv")


def test_a_folder_of_csv_files(tmp_path: Path) -> None:
    for name in ("train", "val", "notes"):
        (tmp_path / f"{name}.csv").write_text("age,label\n1,2\n")
    assert data_files(tmp_path).section == {
        "kind": "csv", "train": {"artifact": tmp_path / "train.csv", "labels": "label"},
        "validation": {"artifact": tmp_path / "val.csv", "labels": "label"},
    }


def test_parquet_files_whole_and_in_shards(tmp_path: Path) -> None:
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"]
    for name in names:
        write_parquet(tmp_path / name)
    found = data_files(tmp_path)
    assert found.section == {
        "kind": "parquet", "train": {"files": [tmp_path / names[0], tmp_path / names[1]], "labels": "label"},
        "test": {"files": [tmp_path / names[2]], "labels": "label"},
    }
    assert {file.name for file in found.files()} == set(names)
    ids = {file: file.name for file in found.files()}
    assert found.with_ids(ids)["train"]["files"] == names[:2]
    assert data_files(tmp_path / names[2]).section["train"] == {"files": [tmp_path / names[2]], "labels": "label"}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["cat", "dog"], {"train": None}),
        (["train/cat", "test/cat"], {"train": "train", "test": "test"}),
        (["pets/train/cat", "pets/valid/cat"], {"train": "pets/train", "validation": "pets/valid"}),
        (["test/cat", "dog"], {"train": None}),
    ],
)
def test_an_archive_of_images(
    tmp_path: Path, packing: Packing, folders: list[str], splits: dict[str, str | None]
) -> None:
    file = tmp_path / "pets"
    file.write_bytes(pack({f"{folder}/1.png": b"" for folder in folders} | {"readme.txt": b""}, packing))
    section = data_files(file).section
    assert section["kind"] == "images"
    assert {split: section[split].get("folder") for split in section if split != "kind"} == splits
    assert all(section[split]["labels"] == "folders" for split in splits)


def test_an_archive_of_saved_splits(tmp_path: Path) -> None:
    file = tmp_path / "ds.tar"
    files = {f"ds/{split}/{name}": b"" for split in ("train", "test") for name in ("state.json", "a.arrow")}
    file.write_bytes(pack(files))
    assert data_files(file).section == {
        "kind": "hugging_face", "train": {"artifact": file, "folder": "ds/train", "labels": "label"},
        "test": {"artifact": file, "folder": "ds/test", "labels": "label"},
    }


def test_an_archive_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "pets.tar").write_bytes(pack({"cat/1.png": b"", "cat/../../x.png": b""}))
    with pytest.raises(UsageError, match="outside"):
        data_files(tmp_path / "pets.tar")


def test_a_job_is_drafted_with_the_ids_of_all_shards(tmp_path: Path) -> None:
    for name in ("train-0-of-2.parquet", "train-1-of-2.parquet"):
        write_parquet(tmp_path / name)
    drafted = draft(teacher="art_" + 20 * "a", student="mlp", data=tmp_path, temperature=3.0)
    assert len(drafted.data.files()) == 2
    assert [term["kind"] for term in drafted.rest["objective"]["terms"]] == ["kl", "cross_entropy"]
