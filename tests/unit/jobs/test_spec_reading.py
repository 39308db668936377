import json
from typing import Any

import pytest

from app.jobs.spec_reading import MAX_ERRORS, nearest_name, read_spec
from stillhouse.contract.failures import InvalidSpecError, MalformedJsonError
from stillhouse.contract.spec import JobSpec

ART = "art_" + "a" * 20
SMALLEST: dict[str, Any] = {
    "teacher": {"kind": "checkpoint", "artifact": ART},
    "student": {"kind": "mlp"},
    "data": {"kind": "idx", "train": {"inputs": ART, "labels": ART}},
}


def refused(**sections: object) -> InvalidSpecError:
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps({**SMALLEST, **sections}).encode())
    return caught.value


def test_a_valid_spec_is_read_and_kept_as_sent() -> None:
    sent = read_spec(json.dumps(SMALLEST).encode())
    assert sent.raw == SMALLEST
    assert sent.spec == JobSpec.model_validate(SMALLEST)


@pytest.mark.parametrize(
    ("sections", "pointer", "suggestion"),
    [
        ({"studnet": {}}, "/studnet", "student"),
        ({"student": {"kind": "mlp", "hiden": [4]}}, "/student/hiden", "hidden"),
        ({"student": {"kind": "cnn", "hiden": 4}}, "/student/hiden", "hidden"),
        ({"student": {"kind": "mpl"}}, "/student/kind", "mlp"),
        ({"teacher": {"kind": "chekpoint", "artifact": ART}}, "/teacher/kind", "checkpoint"),
        ({"teacher": {"kind": "checkpoint", "artefact": ART}}, "/teacher/artefact", "artifact"),
        ({"objective": {"terms": [{"kind": "kl", "temprature": 2}]}}, "/objective/terms/0/temprature", "temperature"),
        ({"objective": {"terms": [{"kind": "kl"}, {"kind": "cross-entropy"}]}}, "/objective/terms/1/kind",
         "cross_entropy"),
        ({"training": {"optimizer": {"kind": "adamww"}}}, "/training/optimizer/kind", "adamw"),
        ({"training": {"optimiser": {"kind": "adamw"}}}, "/training/optimiser", "optimizer"),
        ({"training": {"augmentation": {"transforms": [{"kind": "shift", "pixel": 1}]}}},
         "/training/augmentation/transforms/0/pixel", "pixels"),
        ({"data": {"kind": "idx", "train": {"inputs": ART, "label": ART}}}, "/data/train/label", "labels"),
    ],
)
def test_what_is_misspelt_is_told_with_the_nearest_name(
    sections: dict[str, Any], pointer: str, suggestion: str
) -> None:
    errors = {error.pointer: error for error in refused(**sections).errors}
    assert errors[pointer].suggestion == suggestion
    assert f"did you mean `{suggestion}`?" in errors[pointer].detail


@pytest.mark.parametrize(
    ("sections", "pointer", "told"),
    [
        ({"student": {"kind": "mlp", "hidden": "64"}}, "/student/hidden", "list"),
        ({"student": 3}, "/student", "JSON object"),
        ({"student": {}}, "/student/kind", "give `mlp` or `cnn`"),
        ({"training": {"epochs": "12"}}, "/training/epochs", "integer"),
        ({"objective": {"terms": [{"kind": "kl", "temperature": 0}]}}, "/objective/terms/0/temperature", "than 0"),
        ({"objective": {"terms": [{"kind": "kl", "temperature": -1}]}}, "/objective/terms/0/temperature", "than 0"),
        ({"objective": {"terms": []}}, "/objective/terms", "at least 1 item"),
        ({"objective": {"terms": [{"kind": "kl", "weight": 0}]}}, "/objective", "every weight is 0"),
        ({"labels": {"bad key": "x"}}, "/labels/bad key", "match pattern"),
        ({"labels": {"a/b": 1}}, "/labels/a~1b", "string"),
        ({"zzz": 1}, "/zzz", "known here: version, name"),
        ({"teacher": {"kind": "checkpoint"}}, "/teacher/artifact", "`artifact` is required"),
        ({"student": {"kind": "mlp", "mlp": 1}}, "/student/mlp", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(sections: dict[str, Any], pointer: str, told: str) -> None:
    error = refused(**sections)
    assert error.param == pointer
    assert [(field.pointer, told in field.detail) for field in error.errors] == [(pointer, True)]


def test_all_errors_are_told_at_once_up_to_a_limit() -> None:
    terms = [{"kind": "kl", "weight": -1}] * (MAX_ERRORS + 10)
    error = refused(objective={"terms": terms[:3]})
    assert len(error.errors) == 3
    many = refused(**{f"unknown{number}": 1 for number in range(MAX_ERRORS + 10)})
    assert len(many.errors) == MAX_ERRORS
    assert len(many.message) < 1000


def test_long_names_are_cut_in_messages() -> None:
    assert len(refused(**{"x" * 10_000: 1}).message) < 12_000
    assert len(refused(**{"x" * 10_000: 1}).errors[0].detail) < 500


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"seed": NaN}', b'{"seed": Infinity}'])
def test_what_is_not_json_is_told_so(body: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        read_spec(body)


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"text"'])
def test_json_that_is_no_object_is_told_so(body: bytes) -> None:
    with pytest.raises(InvalidSpecError, match="give a JSON object"):
        read_spec(body)


def test_no_name_is_near_to_something_else_entirely() -> None:
    assert nearest_name("xyzzy", ["inputs", "labels"]) is None
    assert nearest_name("Input", ["inputs", "labels"]) == "inputs"
