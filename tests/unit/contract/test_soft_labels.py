"""What a spec may ask of soft labels, and what it is told where that cannot be."""

import json
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from app.jobs.spec_reading import read_spec
from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec import JobSpec, Kl, LayerPair, Objective
from stillhouse.contract.spec.term import FeatureTerm

ART = "art_" + "0" * 20
SPEC: dict[str, Any] = {
    "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp"},
    "data": {"kind": "npz", "train": {"artifact": ART}},
}
AUGMENTED = SPEC | {"training": {"augmentation": {"transforms": [{"kind": "flip"}]}}}


class Looking(FeatureTerm):
    kind: Literal["looking"] = "looking"


OF_FEATURES = Objective(terms=[Kl()]).model_copy(
    update={"terms": [Looking(pairs=[LayerPair(student="body.0", teacher="body.0")])]}
)


def test_auto_is_the_default() -> None:
    assert JobSpec.model_validate(SPEC).soft_labels.kind == "auto"


@pytest.mark.parametrize("asked", [
    {"kind": "auto"}, {"kind": "online"}, {"kind": "views", "views": 1}, {"kind": "views", "views": 10_000},
])
def test_every_kind_is_taken_with_augmentation(asked: dict[str, Any]) -> None:
    assert JobSpec.model_validate(AUGMENTED | {"soft_labels": asked}).soft_labels.model_dump() == asked


@pytest.mark.parametrize(("sections", "pointer", "told"), [
    ({"soft_labels": {"kind": "views", "views": 2}}, "/soft_labels", "give views 1, or an augmentation"),
    ({"soft_labels": {"kind": "views"}}, "/soft_labels/views", "required"),
    ({"soft_labels": {"kind": "views", "views": 0}}, "/soft_labels/views", "greater than or equal to 1"),
    ({"soft_labels": {"kind": "views", "views": 10_001}}, "/soft_labels/views", "less than or equal to 10000"),
    ({"soft_labels": {"kind": "stored"}}, "/soft_labels/kind", "known here: auto, online, views"),
    ({"soft_labels": {"kind": "online", "views": 3}}, "/soft_labels/views", "unknown key"),
    (
        {
            "soft_labels": {"kind": "views", "views": 1}, "objective": {"terms": [{"kind": "cross_entropy"}]},
        }, "/soft_labels", "add a term such as kl",
    ),
])
def test_what_cannot_be_is_refused_with_what_to_do(sections: dict[str, Any], pointer: str, told: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps(SPEC | sections).encode())
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert told in caught.value.errors[0].detail


def test_views_cannot_be_stored_for_terms_that_look_at_layers() -> None:
    with pytest.raises(ValidationError, match="use kind online, or leave those terms out") as caught:
        JobSpec.model_validate(AUGMENTED | {"soft_labels": {"kind": "views", "views": 2}, "objective": OF_FEATURES})
    assert caught.value.errors()[0]["loc"] == ("soft_labels",)
    assert JobSpec.model_validate(AUGMENTED | {"objective": OF_FEATURES}).soft_labels.kind == "auto"


def test_a_section_that_is_wrong_itself_is_told_alone() -> None:
    wrong = AUGMENTED | {"soft_labels": {"kind": "views", "views": 2}, "training": {"epochs": 0}}
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(wrong)
    assert [error["loc"] for error in caught.value.errors()] == [("training", "epochs")]
