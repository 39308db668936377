import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from app.jobs.spec_reading import read_spec
from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec import Bce, JobSpec

ART = {name: f"art_{name:0<20}" for name in ("teacher", "images", "labels", "test")}


def smallest() -> dict[str, Any]:
    return {
        "teacher": {"kind": "checkpoint", "artifact": ART["teacher"]},
        "student": {"kind": "mlp"},
        "data": {"kind": "idx", "train": {"inputs": ART["images"], "labels": ART["labels"]}},
    }


def changed(pointer: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    spec = smallest()
    *path, last = pointer.strip("/").split("/")
    place = spec
    for key in path:
        place = place.setdefault(key, {})
    place[last] = value
    return spec


def test_teacher_student_and_data_are_enough() -> None:
    spec = JobSpec.model_validate(smallest())
    assert [term.kind for term in spec.effective_objective.terms] == ["kl", "cross_entropy"]
    assert spec.trains_control


def test_what_python_accepts_json_accepts_too() -> None:
    spec = changed("/training/optimizer", {"kind": "sgd", "learning_rate": 1})
    assert JobSpec.model_validate(spec) == JobSpec.model_validate_json(json.dumps(spec))


def test_unlabelled_data_learns_from_the_teacher_alone() -> None:
    spec = JobSpec.model_validate(changed("/data/train/labels", None))
    assert [term.kind for term in spec.effective_objective.terms] == ["kl"]
    assert not spec.trains_control


def test_every_artifact_is_found_with_the_pointer_of_its_field() -> None:
    spec = changed("/data/test", {"inputs": ART["test"], "labels": ART["labels"]})
    assert JobSpec.model_validate(spec).artifacts() == {
        "/teacher/artifact": ART["teacher"],
        "/data/train/inputs": ART["images"],
        "/data/train/labels": ART["labels"],
        "/data/test/inputs": ART["test"],
        "/data/test/labels": ART["labels"],
    }


def test_initial_weights_are_an_artifact_of_the_job() -> None:
    spec = JobSpec.model_validate(changed("/initial_weights", ART["test"]))
    assert spec.artifacts()["/initial_weights"] == ART["test"]


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ({"kind": "pruned"}, "kind pruned begins with the teacher's weights; leave initial_weights out$"),
        ({"kind": "layers", "keep": {"a": [0]}}, "leave initial_weights out, or set student.initialize to false"),
    ],
)
def test_a_student_begins_with_the_weights_of_one_model(student: dict[str, Any], told: str) -> None:
    spec = changed("/student", student)
    JobSpec.model_validate(spec)
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({**spec, "initial_weights": ART["test"]})
    assert re.search(told, caught.value.errors()[0]["msg"])


def test_random_layers_of_the_teacher_may_begin_with_other_weights() -> None:
    spec = changed("/student", {"kind": "layers", "keep": {"a": [0]}, "initialize": False})
    JobSpec.model_validate({**spec, "initial_weights": ART["test"]})


def test_names_of_arrays_are_not_taken_for_artifacts() -> None:
    data = {"kind": "npz", "train": {"artifact": ART["images"], "inputs": "x", "labels": "y"}}
    assert "/data/train/labels" not in JobSpec.model_validate(changed("/data", data)).artifacts()


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/studnet", {"kind": "mlp"}),
        ("/student/hiden", [64]),
        ("/student/kind", "mpl"),
        ("/student/hidden", "64"),
        ("/student/hidden", [0]),
        ("/student", {"kind": "resnet", "depth": 18}),
        ("/student", {"kind": "resnet", "channels": [16, 32]}),
        ("/student", {"kind": "wrn", "depth": 18}),
        ("/student", {"kind": "layers", "keep": {}}),
        ("/student", {"kind": "layers", "keep": {"layer1": []}}),
        ("/student", {"kind": "layers", "keep": {"layer1": [1, 0]}}),
        ("/student", {"kind": "layers", "keep": {"layer1": [0, 0]}}),
        ("/student", {"kind": "layers", "keep": {"layer1": [-1]}}),
        ("/student", {"kind": "layers", "keep": {"layer1..0": [0]}}),
        ("/student", {"kind": "pruned", "ratio": 0}),
        ("/student", {"kind": "pruned", "ratio": 1}),
        ("/student", {"kind": "pruned", "of": "bytes"}),
        ("/student", {"kind": "narrowed", "base": {"kind": "mlp"}, "widths": {"head": [0, 3]}}),
        ("/student", {"kind": "narrowed", "base": {"kind": "pruned"}, "widths": {"head": [1, 3]}}),
        ("/initial_weights", "model.pt"),
        ("/training/epochs", 0),
        ("/training/epochs", 1.5),
        ("/training/epochs", "12"),
        ("/training/optimizer", {"kind": "sgd", "momentum": 0, "nesterov": True}),
        ("/training/schedule", {"kind": "step", "milestones": [0.8, 0.6]}),
        ("/objective/terms", []),
        ("/objective/terms", [{"kind": "kl", "temperature": 0}]),
        ("/objective/terms", [{"kind": "kl", "temperature": -1}]),
        ("/objective/terms", [{"kind": "kl", "temperature": float("nan")}]),
        ("/objective/terms", [{"kind": "kl", "weight": 0}, {"kind": "mse", "weight": 0}]),
        ("/objective/terms", [{"kind": "kl"}, {"kind": "kl"}]),
        ("/objective/terms", [{"kind": "kl", "weight": -1}]),
        ("/data/num_classes", 1),
        ("/data/label_names", ["a", "a"]),
        ("/data/train/inputs", "../../etc/passwd"),
        ("/data/normalization", {"mean": [0.1, 0.2], "std": [1.0]}),
        ("/data/normalization", {"mean": [0.1], "std": [0.0]}),
        ("/export/formats", ["onnx"]),
        ("/version", 2),
        ("/seed", -1),
        ("/devices", 0),
        ("/devices", 65),
        ("/devices", "2"),
        ("/max_runtime", 0),
        ("/max_runtime", 32_000_000),
        ("/max_runtime", "1h"),
        ("/on_max_runtime", "keep"),
        ("/labels", {"": "x"}),
        ("/name", ""),
    ],
)
def test_a_spec_that_cannot_work_is_refused(pointer: str, value: Any) -> None:  # noqa: ANN401 - any JSON
    with pytest.raises(ValidationError):
        JobSpec.model_validate(changed(pointer, value))


def test_label_names_must_be_as_many_as_classes() -> None:
    spec = changed("/data/label_names", ["a", "b"])
    spec["data"]["num_classes"] = 3
    with pytest.raises(ValidationError, match="2 names for num_classes 3"):
        JobSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/objective/terms", [{"kind": "kl"}, {"kind": "cross_entropy"}]),
        ("/teacher", {"kind": "train", "architecture": {"kind": "mlp"}}),
        ("/training/selection_metric", "accuracy"),
    ],
)
def test_what_needs_labels_is_refused_without_them(pointer: str, value: Any) -> None:  # noqa: ANN401 - any JSON
    spec = changed(pointer, value)
    JobSpec.model_validate(spec)
    del spec["data"]["train"]["labels"]
    with pytest.raises(ValidationError, match="label"):
        JobSpec.model_validate(spec)


USUAL = {
    "classification": (["kl", "cross_entropy"], ["kl"]), "multi_label": (["bce", "binary_cross_entropy"], ["bce"]),
    "regression": (["mse", "squared_error"], ["mse"]), "embedding": (["mse", "cosine"], ["mse", "cosine"]),
}


@pytest.mark.parametrize("kind", USUAL)
def test_every_task_has_its_usual_objective(kind: str) -> None:
    labelled, unlabelled = USUAL[kind]
    spec = changed("/task", {"kind": kind})
    assert [term.kind for term in JobSpec.model_validate(spec).effective_objective.terms] == labelled
    assert JobSpec.model_validate(spec).trains_control == (kind != "embedding")
    del spec["data"]["train"]["labels"]
    assert [term.kind for term in JobSpec.model_validate(spec).effective_objective.terms] == unlabelled


def test_labels_that_are_no_alternatives_are_not_softened() -> None:
    soft, _ = JobSpec.model_validate(changed("/task", {"kind": "multi_label"})).effective_objective.terms
    assert isinstance(soft, Bce)
    assert soft.temperature == 1


def test_left_out_the_task_is_classification() -> None:
    assert JobSpec.model_validate(smallest()).task.kind == "classification"
    for old in ("image_classification", "tabular_classification"):
        with pytest.raises(ValidationError, match="classification"):
            JobSpec.model_validate(changed("/task", {"kind": old}))


TRAINED = {"kind": "train", "architecture": {"kind": "mlp"}}
UNFIT: list[tuple[str, str, Any, str, str]] = [
    ("multi_label", "/objective/terms", [{"kind": "mse"}, {"kind": "kl"}], "/objective/terms/1", "use bce"),
    ("multi_label", "/objective/terms", [{"kind": "bce"}, {"kind": "cross_entropy"}], "/objective/terms/1",
     "use binary_cross_entropy"),
    ("regression", "/objective/terms", [{"kind": "kl"}], "/objective/terms/0", "use mse"),
    ("regression", "/objective/terms", [{"kind": "mse"}, {"kind": "binary_cross_entropy"}], "/objective/terms/1",
     "use squared_error"),
    ("embedding", "/objective/terms", [{"kind": "mse"}, {"kind": "squared_error"}], "/objective/terms/1",
     "no true labels"),
    ("classification", "/objective/terms", [{"kind": "bce"}], "/objective/terms/0", "use kl"),
    ("multi_label", "/training/selection_metric", "accuracy", "/training/selection_metric",
     "use average_precision, agreement or loss"),
    ("classification", "/training/selection_metric", "r2", "/training/selection_metric", "use accuracy, agreement"),
    ("embedding", "/training/selection_metric", "r2", "/training/selection_metric", "use cosine"),
    ("regression", "/teacher", TRAINED | {"training": {"selection_metric": "accuracy"}},
     "/teacher/training/selection_metric", "use r2 or loss"),
    ("regression", "/teacher", TRAINED | {"label_smoothing": 0.1}, "/teacher/label_smoothing", "for classification"),
    ("embedding", "/teacher", TRAINED, "/teacher/kind", "give a checkpoint"),
    ("embedding", "/data/label_names", ["a", "b"], "/data/label_names", "leave label_names out"),
    ("classification", "/data/num_classes", 1, "/data/num_classes", "multi_label"),
    ("classification", "/data/label_names", ["a"], "/data/label_names", "multi_label"),
    ("classification", "/student/num_classes", 1, "/student/num_classes", "multi_label"),
    ("classification", "/teacher", {"kind": "train", "architecture": {"kind": "mlp", "num_classes": 1}},
     "/teacher/architecture/num_classes", "multi_label"),
    ("classification", "/devices", 3, "/devices", "give a training.batch_size that is a multiple of 3"),
    ("multi_label", "/task/threshold", 1.0, "/task/threshold", "less than 1"),
]


@pytest.mark.parametrize(("kind", "pointer", "value", "told_at", "advice"), UNFIT)
def test_what_does_not_fit_the_task_is_told_at_its_field_with_what_to_do(
    kind: str, pointer: str, value: Any, told_at: str, advice: str  # noqa: ANN401 - any JSON
) -> None:
    spec = changed(pointer, value)
    spec["task"] = {"kind": kind} | spec.get("task", {})
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps(spec).encode())
    (error,) = caught.value.errors
    assert error.pointer == told_at
    assert advice in error.detail


def test_every_batch_of_the_job_is_shared_evenly() -> None:
    spec = changed("/training", {"batch_size": 96}) | {"teacher": TRAINED, "devices": 3}
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps(spec).encode())
    (error,) = caught.value.errors
    assert (error.pointer, "give a teacher.training.batch_size" in error.detail) == ("/devices", True)
    spec["teacher"] = TRAINED | {"training": {"batch_size": 30}}
    assert read_spec(json.dumps(spec).encode()).spec.devices == 3


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    spec = changed("/task", {"kind": "regression"}) | {
        "objective": {"terms": [{"kind": "kl"}]}, "training": {"selection_metric": "accuracy"},
    }
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps(spec).encode())
    assert [error.pointer for error in caught.value.errors] == ["/objective/terms/0", "/training/selection_metric"]


@pytest.mark.parametrize(("kind", "width"), [("multi_label", 1), ("regression", 1), ("embedding", 1)])
def test_one_output_is_enough_for_what_is_no_choice(kind: str, width: int) -> None:
    spec = changed("/data/num_classes", width) | {"task": {"kind": kind}}
    assert JobSpec.model_validate(spec).data.given_num_classes == 1


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, section in [("JobSpec", schema), *schema["$defs"].items()]:
        for key, described in section.get("properties", {}).items():
            yield f"{name}.{key}", described


def test_every_field_of_the_schema_is_described() -> None:
    bare = [
        name for name, field in properties(JobSpec.model_json_schema())
        if "description" not in field and "const" not in field and "$ref" not in field
    ]
    assert bare == []


def test_every_number_of_the_schema_is_bounded_below() -> None:
    unbounded = [
        name for name, field in properties(JobSpec.model_json_schema())
        for option in [field, *field.get("anyOf", []), *([field["items"]] if "items" in field else [])]
        if option.get("type") in {"integer", "number"} and not {"const", "enum"} & set(option)
        and not {"minimum", "exclusiveMinimum"} & set(option) and not name.endswith(".mean")
    ]
    assert unbounded == []
