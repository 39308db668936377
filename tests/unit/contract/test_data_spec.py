import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.jobs.spec_reading import read_spec
from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec import JobSpec

ART = "art_" + 20 * "a"
SPLITS: dict[str, dict[str, Any]] = {
    "idx": {"inputs": ART, "labels": ART}, "npz": {"artifact": ART}, "parquet": {"files": [ART, ART]},
    "images": {"artifact": ART, "folder": "train"}, "hugging_face": {"artifact": ART}, "csv": {"artifact": ART},
}


def spec(kind: str, train: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {
        "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp"},
        "data": {"kind": kind, "train": SPLITS[kind] | (train or {}), **data},
    }


@pytest.mark.parametrize("kind", SPLITS)
def test_every_format_comes_back_from_json(kind: str) -> None:
    sent = JobSpec.model_validate(spec(kind, test=SPLITS[kind]))
    assert JobSpec.model_validate_json(sent.model_dump_json()) == sent
    assert sent.data.kind == kind
    assert sent.data.train.is_labelled


@pytest.mark.parametrize("kind", ["npz", "parquet", "images", "hugging_face", "csv"])
def test_every_format_can_be_unlabelled(kind: str) -> None:
    assert not JobSpec.model_validate(spec(kind, {"labels": None})).data.train.is_labelled


def test_files_are_found_with_their_place() -> None:
    sent = JobSpec.model_validate(spec("parquet", test={"files": ART}))
    assert [*sent.artifacts()] == [
        "/teacher/artifact", "/data/train/files/0", "/data/train/files/1", "/data/test/files/0"
    ]


def test_one_name_needs_no_brackets() -> None:
    listed = spec("csv", {"labels": ["y"], "soft_labels": {"kind": "votes", "votes": ["r"]}})
    bare = spec("csv", {"labels": "y", "soft_labels": {"kind": "votes", "votes": "r"}})
    assert JobSpec.model_validate(listed) == JobSpec.model_validate(bare)


@pytest.mark.parametrize(
    ("sent", "pointer", "told"),
    [
        (spec("parquet", {"files": []}), "/data/train/files", "at least 1"),
        (spec("parquet", {"files": [ART, "x"]}), "/data/train/files/1", "pattern"),
        (spec("parquet", {"inputs": 3}), "/data/train/inputs", "valid list"),
        (spec("parquet", {"inputs": ["a", 3]}), "/data/train/inputs/1", "valid string"),
        (spec("parquet", {"lables": "y"}), "/data/train/lables", "did you mean `labels`"),
        (spec("csv", {"soft_labels": {"kind": "vector", "values": "p"}}), "/data/train/soft_labels/kind", "vectors"),
        (spec("images", image={"size": [32]}), "/data/image/size", "at least 2"),
        (spec("images", image={"size": [0, 3]}), "/data/image/size/0", "greater"),
        (spec("images", image={"channels": 2}), "/data/image/channels", "1 or 3"),
        (spec("images", image={"resize": "crop"}), "/data/image/resize", "shorter_side_crop"),
        (spec("images", {"labels": "names"}), "/data/train/labels", "folders"),
        (spec("npz", image={"size": [3, 3]}), "/data/image", "unknown key"),
        (spec("csv", delimiter=" "), "/data/delimiter", "Input should be"),
        (spec("csv", numeric=["a"], ignore=["a"]), "/data", "'a' is in numeric and in ignore"),
        (spec("csv", {"labels": "y"}, categorical=["y"]), "/data", "'y' is in categorical and is the label"),
        (spec("csv", layout="hwc"), "/data", "layout orders the axes of arrays"),
        (spec("images", layout="hwc"), "/data", "layout orders the axes of arrays"),
        (spec("csv", missing="drop"), "/data/missing", "refuse"),
        (spec("csv") | {"data": {"kind": "tsv"}}, "/data/kind", "unknown kind `tsv`; did you mean `csv`"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(sent: dict[str, Any], pointer: str, told: str) -> None:
    with pytest.raises(InvalidSpecError, match=told) as caught:
        read_spec(json.dumps(sent).encode())
    assert caught.value.param == pointer


def test_balanced_sampling_needs_one_class_per_sample() -> None:
    balanced = {"training": {"balanced_sampling": True}}
    JobSpec.model_validate(spec("csv") | balanced)
    with pytest.raises(ValidationError, match=r"data\.train has no labels"):
        JobSpec.model_validate(spec("csv", {"labels": None}) | balanced)
    train = {"kind": "train", "architecture": {"kind": "mlp"}, **balanced}
    JobSpec.model_validate(spec("csv") | {"teacher": train})
