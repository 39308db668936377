"""Short ways to write a spec on a command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.cli.exits import UsageError
from stillhouse.cli.shorthand import architecture, data_files, is_artifact_id, labels, student


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("mlp", {"kind": "mlp"}),
        ("mlp:64", {"kind": "mlp", "hidden": [64]}),
        ("mlp:256-128", {"kind": "mlp", "hidden": [256, 128]}),
        ("cnn:16-32", {"kind": "cnn", "channels": [16, 32]}),
        ("resnet", {"kind": "resnet"}),
        ("resnet:20", {"kind": "resnet", "depth": 20}),
        ("resnet:8x4", {"kind": "resnet", "depth": 8, "stem": 32, "channels": [64, 128, 256]}),
        ("wrn:40-2", {"kind": "wrn", "depth": 40, "widen_factor": 2}),
        ("timm:resnet18.a1_in1k", {"kind": "timm", "name": "resnet18.a1_in1k"}),
        ("torchvision:mobilenet_v3_small", {"kind": "torchvision", "name": "mobilenet_v3_small"}),
        ("transformers:data2vec-vision", {"kind": "transformers", "model_type": "data2vec-vision"}),
        ('{"kind": "mlp", "hidden": [8], "dropout": 0.1}', {"kind": "mlp", "hidden": [8], "dropout": 0.1}),
    ],
)
def test_an_architecture(text: str, section: dict[str, Any]) -> None:
    assert architecture(text) == section


@pytest.mark.parametrize(
    "text",
    [
        "", "mlp:", "mlp:64,32", "resnet:18", "mlp:0", "{", "[1]", '{"kind": "mlp", "hiden": [1]}', "resnet:x4",
        "wrn:40",
        "timm", "timm:", "timm:hf-hub:a/b", "torchvision:../a", "vgg:16", "pruned:0.5", "layers",
    ],
)
def test_what_is_no_architecture_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="architecture"):
        architecture(text)


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("pruned", {"kind": "pruned"}),
        ("pruned:0.25", {"kind": "pruned", "ratio": 0.25}),
        ("pruned:.5", {"kind": "pruned", "ratio": 0.5}),
        ("resnet:20", {"kind": "resnet", "depth": 20}),
        ('{"kind": "layers", "keep": {"layer1": [0]}}', {"kind": "layers", "keep": {"layer1": [0]}}),
    ],
)
def test_a_student_may_also_be_made_from_the_teacher(text: str, section: dict[str, Any]) -> None:
    assert student(text) == section


@pytest.mark.parametrize("text", ["pruned:2", "pruned:50%", "pruned:.0001", '{"kind": "layers"}', "mlp:"])
def test_what_is_no_student_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="neither an architecture nor a student made from the teacher"):
        student(text)


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    names = [
        "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte",
    ]
    for name in [*names, "README.md", "teacher.safetensors", ".hidden-train-images-idx3-ubyte"]:
        (tmp_path / name).touch()
    found = data_files(tmp_path)
    assert {file.name for file in found.files()} == set(names)
    ids = {file: f"id of {file.name}" for file in found.files()}
    assert found.with_ids(ids) == {
        "kind": "idx",
        "train": {"inputs": f"id of {names[0]}", "labels": f"id of {names[1]}"},
        "test": {"inputs": f"id of {names[2]}", "labels": f"id of {names[3]}"},
    }


def test_images_without_labels_are_unlabelled_data(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").touch()
    (tmp_path / "t10k-labels-idx1-ubyte").touch()
    assert data_files(tmp_path).section == {"kind": "idx", "train": {"inputs": tmp_path / "train-images-idx3-ubyte"}}


def test_two_files_for_one_place_are_told(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="leave one"):
        data_files(tmp_path)


def test_a_folder_of_npz_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.zeros(3), y=np.zeros(3))
    np.savez(tmp_path / "test.npz", inputs=np.zeros(3))
    assert data_files(tmp_path).section == {
        "kind": "npz",
        "train": {"artifact": tmp_path / "train.npz", "inputs": "x", "labels": "y"},
        "test": {"artifact": tmp_path / "test.npz", "inputs": "inputs", "labels": None},
    }


def test_one_npz_file_with_both_splits(tmp_path: Path) -> None:
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=np.zeros(3), y_train=np.zeros(3), x_test=np.zeros(3), y_test=np.zeros(3))
    found = data_files(file)
    assert found.section == {
        "kind": "npz",
        "train": {"artifact": file, "inputs": "x_train", "labels": "y_train"},
        "test": {"artifact": file, "inputs": "x_test", "labels": "y_test"},
    }
    assert found.files() == [file]
    assert data_files(tmp_path).section == found.section


def test_an_npz_file_with_strange_names_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", foo=np.zeros(3), bar=np.zeros(3))
    with pytest.raises(UsageError, match="holds bar, foo"):
        data_files(tmp_path)


@pytest.mark.parametrize("name", ["nothing-here", "empty", "train.npz"])
def test_a_place_without_data_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "train.npz").write_text("no zip")
    with pytest.raises(UsageError, match=r"no folder or file|no training data|not an NPZ file"):
        data_files(tmp_path / name)


def test_labels_of_a_job() -> None:
    assert labels(["team=vision", "note=a=b", "empty="]) == {"team": "vision", "note": "a=b", "empty": ""}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        labels(["team"])


def test_ids_of_artifacts_are_known_by_their_form() -> None:
    assert is_artifact_id("art_4x2m9k7q1w8e5r6t3y0u")
    assert not is_artifact_id("art.safetensors")
