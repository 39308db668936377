import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from stillhouse.contract.spec import JobSpec

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
        if option.get("type") in {"integer", "number"} and "const" not in option
        and not {"minimum", "exclusiveMinimum"} & set(option) and not name.endswith(".mean")
    ]
    assert unbounded == []
