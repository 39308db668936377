from dataclasses import dataclass, field
from typing import Any

import pytest

from app.jobs.admission import check
from stillhouse.contract.failures import (
    EmptyDataError,
    InputShapeMismatchError,
    InvalidSpecError,
    LabelCountMismatchError,
    OutputWidthMismatchError,
    StillhouseError,
    UnknownArchitectureError,
    UnknownArrayError,
    UnknownArtifactError,
    UnusableArrayError,
    WrongArtifactKindError,
)
from stillhouse.contract.spec import JobSpec


def art(name: str) -> str:
    return f"art_{name:0<20}"


@dataclass(frozen=True)
class Row:
    kind: str
    format: str
    facts: dict[str, Any] = field(default_factory=dict)


def idx(*shape: int, dtype: str = "uint8") -> Row:
    return Row("data", "idx", {"dtype": dtype, "shape": list(shape), "is_gzipped": False})


def npz(**arrays: tuple[str, list[int]]) -> Row:
    return Row("data", "npz", {"arrays": {name: {"dtype": kind, "shape": shape} for name, (kind, shape)
                                          in arrays.items()}})


def teacher(**architecture: object) -> Row:
    about = {"architecture": {"kind": "mlp", **architecture}} if architecture else {}
    return Row("teacher", "safetensors", {"num_tensors": 2, "num_parameters": 6, **about})


STORED = {
    art("teacher"): teacher(num_classes=10, input_shape=[1, 28, 28]),
    art("silent"): teacher(),
    art("torch"): Row("teacher", "pytorch", {"num_tensors": 2}),
    art("student"): Row("model", "safetensors"),
    art("bundle"): Row("model", "zip"),
    art("wide"): Row("teacher", "safetensors", {
        "num_tensors": 2, "num_parameters": 6, "tensors": {
            "conv1.weight": {"dtype": "float32", "shape": [8, 1, 3, 3]},
            "fc.weight": {"dtype": "float32", "shape": [1000, 8]},
        },
    }),
    art("images"): idx(600, 28, 28),
    art("labels"): idx(600),
    art("few"): idx(599),
    art("small"): idx(600, 14, 14),
    art("colour"): idx(600, 32, 32, 3),
    art("floats"): idx(600, dtype="float32"),
    art("flat"): idx(600),
    art("deep"): idx(600, 2, 2, 2, 2),
    art("table"): npz(inputs=("float32", [600, 20]), labels=("int64", [600]), Targets=("int64", [600])),
    art("rows"): npz(
        inputs=("float32", [600, 20]), labels=("uint8", [600, 3]), flags=("bool", [600, 3]),
        values=("float64", [600, 2]), one=("float32", [600]), cube=("float32", [600, 2, 2]), none=("float32", [600, 0]),
    ),
    art("odd"): npz(inputs=("<U3", [600, 20]), labels=("int64", [600, 1]), empty=("float32", [0, 20])),
}


def spec(**sections: Any) -> JobSpec:  # noqa: ANN401 - any JSON
    return JobSpec.model_validate({
        "teacher": {"kind": "checkpoint", "artifact": art("teacher")},
        "student": {"kind": "mlp"},
        "data": {"kind": "idx", "train": images()},
        **sections,
    })


def images(inputs: str = "images", labels: str | None = "labels") -> dict[str, Any]:
    return {"inputs": art(inputs), **({"labels": art(labels)} if labels else {})}


def table(artifact: str = "table", **names: str | None) -> dict[str, Any]:
    return {
        "teacher": {"kind": "train", "architecture": {"kind": "mlp"}},
        "data": {"kind": "npz", "train": {"artifact": art(artifact), **names}},
    }


def idx_data(train: dict[str, Any] | None = None, **more: object) -> dict[str, Any]:
    return {"data": {"kind": "idx", "train": train or images(), **more}}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        idx_data(images(labels=None)),
        idx_data(test=images(), validation=images(), num_classes=10),
        idx_data(images("colour"), layout="hwc") | {"teacher": {"kind": "train", "architecture": {"kind": "cnn"}}},
        table(),
        table(labels=None) | {"teacher": {"kind": "checkpoint", "artifact": art("silent"),
                                          "architecture": {"kind": "mlp"}}},
        table() | {"task": {"kind": "classification"}},
        table("rows") | {"task": {"kind": "multi_label"}},
        table("rows", labels="values") | {"task": {"kind": "regression"}},
        table("rows", labels="one") | {"task": {"kind": "regression"}},
        table("rows", labels="nothing") | {"task": {"kind": "embedding"}, "teacher": {
            "kind": "checkpoint", "artifact": art("silent"), "architecture": {"kind": "mlp"},
        }},
        {"teacher": {"kind": "checkpoint", "artifact": art("silent"), "architecture": {"kind": "mlp"}}},
        {"student": {"kind": "mlp", "num_classes": 10, "input_shape": [1, 28, 28]}},
        {"student": {"kind": "resnet"}},
        {"student": {"kind": "timm", "name": "resnet18"}},
        {"student": {"kind": "layers", "keep": {"body": [0]}}},
        {"student": {"kind": "pruned"}},
        {"teacher": {"kind": "checkpoint", "artifact": art("torch"), "architecture": {"kind": "resnet"}}},
        {"initial_weights": art("torch")},
        {"initial_weights": art("silent")},
        {"initial_weights": art("student")},
        {"teacher": {"kind": "checkpoint", "artifact": art("wide"), "architecture": {"kind": "resnet"}}},
        {"teacher": {"kind": "checkpoint", "artifact": art("wide"), "architecture": {"kind": "resnet"}}}
        | idx_data(num_classes=1000),
    ],
)
def test_what_can_work_is_admitted(sections: dict[str, Any]) -> None:
    check(spec(**sections), STORED)


REFUSED: list[tuple[dict[str, Any], type[StillhouseError], str]] = [
    ({"teacher": {"kind": "checkpoint", "artifact": art("nobody")}}, UnknownArtifactError, "/teacher/artifact"),
    (idx_data(images("nobody")), UnknownArtifactError, "/data/train/inputs"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("images")}}, WrongArtifactKindError, "/teacher/artifact"),
    (idx_data(images("teacher")), WrongArtifactKindError, "/data/train/inputs"),
    (idx_data(images("table")), WrongArtifactKindError, "/data/train/inputs"),
    (table("images"), WrongArtifactKindError, "/data/train/artifact"),
    (idx_data(images(labels="few")), LabelCountMismatchError, "/data/train/labels"),
    (idx_data(test=images(labels="few")), LabelCountMismatchError, "/data/test/labels"),
    (table(inputs="input"), UnknownArrayError, "/data/train/inputs"),
    (table(labels="targets"), UnknownArrayError, "/data/train/labels"),
    (idx_data(images(labels="floats")), UnusableArrayError, "/data/train/labels"),
    (idx_data(images(labels="images")), UnusableArrayError, "/data/train/labels"),
    (idx_data(images("flat")), UnusableArrayError, "/data/train/inputs"),
    (idx_data(images("deep")), UnusableArrayError, "/data/train/inputs"),
    (table("odd"), UnusableArrayError, "/data/train/inputs"),
    (table("odd", inputs="empty", labels=None) | {"teacher": {"kind": "checkpoint", "artifact": art("teacher")}},
     EmptyDataError, "/data/train/inputs"),
    (idx_data(layout="hwc"), UnusableArrayError, "/data/train/inputs"),
    (idx_data(test=images("small")), InputShapeMismatchError, "/data/test/inputs"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("silent")}}, UnknownArchitectureError,
     "/teacher/architecture"),
    (idx_data(images("small")), InputShapeMismatchError, "/teacher/artifact"),
    ({"student": {"kind": "mlp", "input_shape": [784]}}, InputShapeMismatchError, "/student/input_shape"),
    (table() | {"student": {"kind": "cnn"}}, InputShapeMismatchError, "/student/kind"),
    (table() | {"student": {"kind": "torchvision", "name": "resnet18"}}, InputShapeMismatchError, "/student/kind"),
    (table() | {"student": {"kind": "shortened", "base": {"kind": "cnn"}, "keep": {"body": [0]}}},
     InputShapeMismatchError, "/student/base/kind"),
    ({"student": {"kind": "shortened", "base": {"kind": "mlp", "num_classes": 9}, "keep": {"body": [0]}}},
     OutputWidthMismatchError, "/student/base/num_classes"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("torch")}}, UnknownArchitectureError, "/teacher/architecture"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("wide"),
                  "architecture": {"kind": "resnet", "num_classes": 10}}},
     OutputWidthMismatchError, "/teacher/artifact"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("wide"), "architecture": {"kind": "resnet"}}}
     | idx_data(num_classes=10), OutputWidthMismatchError, "/teacher/artifact"),
    ({"initial_weights": art("wide")}, OutputWidthMismatchError, "/initial_weights"),
    ({"initial_weights": art("nobody")}, UnknownArtifactError, "/initial_weights"),
    ({"initial_weights": art("images")}, WrongArtifactKindError, "/initial_weights"),
    ({"initial_weights": art("bundle")}, WrongArtifactKindError, "/initial_weights"),
    ({"teacher": {"kind": "checkpoint", "artifact": art("student")}}, WrongArtifactKindError, "/teacher/artifact"),
    ({"student": {"kind": "mlp", "num_classes": 9}}, OutputWidthMismatchError, "/student/num_classes"),
    (idx_data(num_classes=9), OutputWidthMismatchError, "/teacher/artifact"),
    (idx_data(num_classes=10) | {"teacher": {"kind": "train", "architecture": {"kind": "mlp", "num_classes": 9}}},
     OutputWidthMismatchError, "/teacher/architecture/num_classes"),
    (idx_data(label_names=["a", "b"]), OutputWidthMismatchError, "/teacher/artifact"),
    (table("rows"), UnusableArrayError, "/data/train/labels"),
    (table("rows", labels="one"), UnusableArrayError, "/data/train/labels"),
    (table() | {"task": {"kind": "multi_label"}}, UnusableArrayError, "/data/train/labels"),
    (table("rows", labels="cube") | {"task": {"kind": "regression"}}, UnusableArrayError, "/data/train/labels"),
    (table("rows", labels="none") | {"task": {"kind": "regression"}}, UnusableArrayError, "/data/train/labels"),
    (table("rows", labels="flags") | {"task": {"kind": "regression"}}, UnusableArrayError, "/data/train/labels"),
    (table("rows") | {"task": {"kind": "multi_label"}, "student": {"kind": "mlp", "num_classes": 4}},
     OutputWidthMismatchError, "/data/train/labels"),
    ({"task": {"kind": "regression"}, "teacher": table()["teacher"], "data": {
        "kind": "npz", "train": {"artifact": art("rows"), "labels": "values"},
        "test": {"artifact": art("rows"), "labels": "one"},
    }}, OutputWidthMismatchError, "/data/test/labels"),
    (table() | {"training": {"augmentation": {"transforms": [{"kind": "flip"}]}}}, InvalidSpecError,
     "/training/augmentation"),
    (idx_data(normalization={"mean": [0.1, 0.2], "std": [1.0, 1.0]}), InvalidSpecError, "/data/normalization/mean"),
]


@pytest.mark.parametrize(("sections", "kind", "pointer"), REFUSED)
def test_what_cannot_work_is_refused_with_its_code_and_place(
    sections: dict[str, Any], kind: type[StillhouseError], pointer: str
) -> None:
    with pytest.raises(kind) as caught:
        check(spec(**sections), STORED)
    assert caught.value.param == pointer


def test_the_nearest_array_is_suggested() -> None:
    with pytest.raises(UnknownArrayError, match="did you mean `Targets`"):
        check(spec(**table(labels="targets")), STORED)


def test_a_four_axis_image_is_read_by_its_layout() -> None:
    sections = idx_data(images("colour"), layout="chw") | {
        "teacher": {"kind": "train", "architecture": {"kind": "cnn"}}, "student": {"kind": "cnn",
                                                                                 "input_shape": [3, 32, 32]},
    }
    with pytest.raises(InputShapeMismatchError, match=r"\[32, 32, 3\]"):
        check(spec(**sections), STORED)
    sections["data"]["layout"] = "auto"
    check(spec(**sections), STORED)
