"""Admission by the headers of columns, tables and archives; arrays are in test_admission."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from app.jobs.admission import check
from app.jobs.headers import agree
from app.jobs.headers.columns import shape_of_columns
from stillhouse.contract.failures import (
    InputShapeMismatchError,
    InvalidSpecError,
    StillhouseError,
    UnknownColumnError,
    UnknownFolderError,
    UnknownLabelError,
    UnusableColumnError,
    UnusableLabelsError,
    WrongArtifactKindError,
)
from stillhouse.contract.spec import ImageFit, JobSpec, LabelKind, ParquetSplit


def art(name: str) -> str:
    return f"art_{name:0<20}"


@dataclass(frozen=True)
class Row:
    kind: str
    format: str
    facts: dict[str, Any] = field(default_factory=dict)


IMAGE = "struct<bytes: binary, path: string>"


def parquet(**columns: str) -> Row:
    return Row("data", "parquet", {"num_rows": 6, "columns": columns})


def folders(**counts: int) -> Row:
    named = {name.replace("__", "/").replace("root", ""): count for name, count in counts.items()}
    return Row("data", "images", {"num_images": sum(counts.values()), "folders": named})


def saved(*names: str) -> Row:
    folder = {"columns": {"image": IMAGE, "label": "int64"}, "label_names": {"label": ["a", "b"]}, "num_files": 1}
    return Row("data", "hugging_face", {"folders": dict.fromkeys(names, folder)})


STORED = {
    art("photos"): parquet(image=IMAGE, label="int64", Name="string", weight="float64", other="list<float64>"),
    art("more"): parquet(image=IMAGE, label="int32", weight="float64"),
    art("numbers"): parquet(a="float32", b="int64", text="string", label="int64", when="int64 (of another meaning)"),
    art("rows"): Row("data", "csv", {"header": "age,city,id,label"}),
    art("semi"): Row("data", "csv", {"header": "age;city;label"}),
    art("twice"): Row("data", "csv", {"header": "age,age,label"}),
    art("pets"): folders(train__cat=3, train__dog=2, test__cat=1, test__dog=1, odd__cat=1, odd__bird=1),
    art("wrapped"): folders(pets__cat=3, pets__dog=3),
    art("loose"): folders(root=2, cat=2),
    art("deep"): folders(cat__young=2, dog=1),
    art("huge"): Row("data", "images", {"num_images": 10**5}),
    art("saved"): saved("ds/train", "ds/test"),
    art("single"): saved("ds"),
}


def spec(kind: str, train: dict[str, Any], **sections: Any) -> JobSpec:  # noqa: ANN401 - any JSON
    data = {"kind": kind, "train": train} | sections.pop("data", {})
    return JobSpec.model_validate({
        "teacher": {"kind": "train", "architecture": {"kind": "mlp"}}, "student": {"kind": "mlp"}, "data": data,
        **sections,
    })


def of(name: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"artifact": art(name), **fields}


def files(*names: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"files": [art(name) for name in names], **fields}


CNN = {"student": {"kind": "cnn"}}
FITTED = {"image": {"size": [32, 24], "channels": 3}}


@pytest.mark.parametrize(
    "sent",
    [
        spec("parquet", files("photos"), **CNN),
        spec("parquet", files("photos", "photos"), data={"test": files("more")}),
        spec("parquet", files("photos"), data=FITTED, student={"kind": "cnn", "input_shape": [3, 32, 24]}),
        spec("parquet", files("photos", inputs="other")),
        spec("parquet", files("numbers", inputs=["a", "b"]), student={"kind": "mlp", "input_shape": [2]}),
        spec("parquet", files("photos", labels="Name")),
        spec("csv", of("rows")),
        spec("csv", of("semi"), data={"delimiter": ";", "numeric": ["age"], "ignore": ["city"]}),
        spec("csv", of("rows", labels="city", soft_labels={"kind": "votes", "votes": ["id"]})),
        spec("csv", of("rows"), task={"kind": "classification"}),
        spec("images", of("pets", folder="train"), data={"test": of("pets", folder="test/")}, **CNN),
        spec("images", of("wrapped", folder="pets")),
        spec("images", of("deep")),
        spec("images", of("huge", folder="anywhere")),
        spec("hugging_face", of("saved"), data={"test": of("saved")}, **CNN),
        spec("hugging_face", of("single"), data={"test": of("saved", folder="ds/test")}),
    ],
)
def test_what_can_work_is_admitted(sent: JobSpec) -> None:
    check(sent, STORED)


REFUSED: list[tuple[JobSpec, type[StillhouseError], str, str]] = [
    (spec("parquet", files("photos", "rows")), WrongArtifactKindError, "/data/train/files/1", "format csv"),
    (spec("parquet", files("photos", inputs="img")), UnknownColumnError, "/data/train/inputs", "did you mean `image`"),
    (spec("parquet", files("photos", labels="name")), UnknownColumnError, "/data/train/labels", "did you mean `Name`"),
    (spec("parquet", files("photos", soft_labels={"kind": "vectors", "values": "xyz"})), UnknownColumnError,
     "/data/train/soft_labels", "it has Name, image"),
    (spec("parquet", files("photos", inputs="Name")), UnusableColumnError, "/data/train/inputs", "`Name` is string"),
    (spec("parquet", files("numbers", inputs=["a", "text"])), UnusableColumnError, "/data/train/inputs", "`text`"),
    (spec("parquet", files("numbers", inputs="when")), UnusableColumnError, "/data/train/inputs", "another meaning"),
    (spec("parquet", files("photos", labels="image")), UnusableLabelsError, "/data/train/labels", "struct"),
    (spec("parquet", files("photos", labels="other")), UnusableLabelsError, "/data/train/labels", "task.kind"),
    (spec("parquet", files("photos", labels=["label", "weight"])), UnusableLabelsError, "/data/train/labels",
     "one column"),
    (spec("parquet", files("photos", "more")), UnusableColumnError, "/data/train/files/1", "int32 in this file"),
    (spec("parquet", files("numbers", inputs=["a", "b"]), data={"test": files("numbers", inputs=["a"])}),
     InputShapeMismatchError, "/data/test/inputs", r"\[1\], those of train \[2\]"),
    (spec("parquet", files("numbers", inputs=["a", "b"]), **CNN), InputShapeMismatchError, "/student/kind", "mlp"),
    (spec("parquet", files("photos"), data=FITTED, student={"kind": "mlp", "input_shape": [3, 24, 32]}),
     InputShapeMismatchError, "/student/input_shape", r"\[3, 32, 24\]"),
    (spec("parquet", files("photos"), student={"kind": "mlp", "input_shape": [7]}), InputShapeMismatchError,
     "/student/input_shape", r"\[\?, \?, \?\]"),
    (spec("parquet", files("photos"), data=FITTED | {"normalization": {"mean": [0.0, 1.0], "std": [1.0, 1.0]}}),
     InvalidSpecError, "/data/normalization/mean", "3 channels"),
    (spec("parquet", files("photos", inputs="other"), data=FITTED), InvalidSpecError, "/data/image", "`other` is list"),
    (spec("csv", of("rows", labels="Age")), UnknownColumnError, "/data/train/labels", "did you mean `age`"),
    (spec("csv", of("rows"), data={"ignore": ["identity"]}), UnknownColumnError, "/data/ignore", "`identity`"),
    (spec("csv", of("rows"), data={"categorical": ["town"]}), UnknownColumnError, "/data/categorical", "`town`"),
    (spec("csv", of("semi")), UnknownColumnError, "/data/train/labels", "`label`"),
    (spec("csv", of("twice")), UnusableColumnError, "/data/train/artifact", "Two columns are called `age`"),
    (spec("csv", of("rows"), data={"ignore": ["age", "city", "id"]}), UnusableColumnError, "/data/train", "No column"),
    (spec("csv", of("rows"), **CNN), InputShapeMismatchError, "/student/kind", "table"),
    (spec("csv", of("rows"), training={"augmentation": {"transforms": [{"kind": "flip"}]}}), InvalidSpecError,
     "/training/augmentation", "table"),
    (spec("images", of("pets", folder="trian")), UnknownFolderError, "/data/train/folder", "did you mean `train`"),
    (spec("images", of("pets", folder="train"), data={"test": of("pets", folder="odd")}), UnknownLabelError,
     "/data/test/folder", "`bird` is no class"),
    (spec("images", of("pets", folder="train"), data={"label_names": ["cat", "cow"]}), UnknownLabelError,
     "/data/train/folder", "`dog`"),
    (spec("images", of("wrapped")), UnusableLabelsError, "/data/train/folder", "set folder to `pets`"),
    (spec("images", of("loose")), UnusableLabelsError, "/data/train/labels", "outside any folder"),
    (spec("hugging_face", of("saved", folder="ds")), UnknownFolderError, "/data/train/folder", "`ds/train`, `ds/test`"),
    (spec("hugging_face", of("saved"), data={"validation": of("saved")}), UnknownFolderError,
     "/data/validation/folder", "none is `validation`"),
    (spec("hugging_face", of("single", labels="target")), UnknownColumnError, "/data/train/labels", "`target`"),
]


@pytest.mark.parametrize(("sent", "kind", "pointer", "told"), REFUSED)
def test_what_cannot_work_is_refused_with_its_code_and_place(
    sent: JobSpec, kind: type[StillhouseError], pointer: str, told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        check(sent, STORED)
    assert caught.value.param == pointer


@pytest.mark.parametrize(
    ("kind", "labels", "types"),
    [
        ("multi_hot", ["a", "b"], {"a": "bool", "b": "int64"}), ("multi_hot", ["a"], {"a": "list<string>"}),
        ("targets", ["a"], {"a": "float64"}), ("targets", ["a"], {"a": "list<float32>"}),
        ("targets", ["a", "b"], {"a": "float64", "b": "int8"}),
    ],
)
def test_other_tasks_take_other_columns(kind: LabelKind, labels: list[str], types: dict[str, str]) -> None:
    split = ParquetSplit(files=[art("x")], labels=labels)
    columns = {"image": "binary", **types}
    assert shape_of_columns(split, columns, kind, "/data/train", fit=ImageFit()) == [None, None, None]


@pytest.mark.parametrize(
    ("kind", "labels", "types"),
    [
        ("multi_hot", ["a"], {"a": "int64"}), ("multi_hot", ["a", "b"], {"a": "bool", "b": "string"}),
        ("targets", ["a"], {"a": "string"}), ("targets", ["a"], {"a": "list<string>"}),
    ],
)
def test_columns_of_no_such_labels_are_refused(kind: LabelKind, labels: list[str], types: dict[str, str]) -> None:
    split = ParquetSplit(files=[art("x")], labels=labels)
    with pytest.raises(UnusableLabelsError):
        shape_of_columns(split, {"image": "binary", **types}, kind, "/data/train", fit=ImageFit())


def test_shapes_agree_as_far_as_they_are_known() -> None:
    assert agree([3, None, None], [3, 32, 32])
    assert agree(None, [7])
    assert not agree([3, None, None], [1, 32, 32])
    assert not agree([None], [1, 32, 32])
