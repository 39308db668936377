"""What the terms on layers say of themselves, and what they refuse."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from stillhouse.contract.spec import JobSpec, Objective
from stillhouse.contract.spec.feature_terms import LayerTerm
from stillhouse.contract.spec.term import FeatureTerm, OutputTerm

KINDS: dict[str, type[FeatureTerm]] = {kind.model_fields["kind"].default: kind for kind in get_args(LayerTerm)}
PAIRS = [{"student": "body.3", "teacher": "body.6"}]


def objective(kind: str, **fields: Any) -> Objective:  # noqa: ANN401 - any fields
    return Objective.model_validate({"terms": [{"kind": kind, **fields}]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_on_layers_says_what_it_is_and_reads_the_teacher_online(kind: str) -> None:
    made = objective(kind, pairs=PAIRS)
    assert made.needs_features
    assert made.needs_teacher
    assert all(len(part) > 5 for part in KINDS[kind].about)
    assert KINDS[kind].__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_term_that_can_compare_outputs_does_without_layers(kind: str) -> None:
    if issubclass(KINDS[kind], OutputTerm):
        assert not objective(kind).needs_features
        assert not objective(kind, pairs=[]).needs_features
    else:
        with pytest.raises(ValidationError, match="pairs"):
            objective(kind)
        with pytest.raises(ValidationError, match="pairs"):
            objective(kind, pairs=[])


def test_which_terms_serve_embeddings_and_which_compare_items() -> None:
    assert {kind for kind, term in KINDS.items() if issubclass(term, OutputTerm)} == {
        "rkd", "sp", "pkt", "cka", "cosine"
    }
    assert {kind for kind, term in KINDS.items() if "embedding" not in term.tasks} == {"crd"}
    assert {kind for kind, term in KINDS.items() if term.compares_items} == {"rkd", "sp", "pkt", "cka", "review"}
    assert {kind for kind, term in KINDS.items() if term.needs_labels and term.needs_true_class} == {"crd"}


@pytest.mark.parametrize(
    ("kind", "fields", "place"),
    [
        ("fitnet", {"projection": "linear"}, "projection"),
        ("fitnet", {"pairs": [{"student": "body..3", "teacher": "body.6"}]}, "student"),
        ("fitnet", {"pairs": [{"student": "body.3"}]}, "teacher"),
        ("fitnet", {"pairs": PAIRS * 17}, "pairs"),
        ("at", {"power": 0.5}, "power"),
        ("at", {"power": 5}, "power"),
        ("vid", {"initial_variance": 0}, "initial_variance"),
        ("crd", {"temperature": 0}, "temperature"),
        ("crd", {"momentum": 1}, "momentum"),
        ("crd", {"num_negatives": 0}, "num_negatives"),
        ("crd", {"feat_dim": 1}, "feat_dim"),
        ("crd", {"temperature_ramp": {"kind": "linear"}}, "temperature_ramp"),
        ("rkd", {"distance_weight": -1}, "distance_weight"),
        ("rkd", {"distance_weight": 0, "angle_weight": 0}, "both 0"),
        ("cosine", {"temperature": 2}, "temperature"),
    ],
)
def test_a_term_that_cannot_work_is_refused(kind: str, fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        objective(kind, **{"pairs": PAIRS} | fields)


def test_crd_is_refused_on_data_without_labels() -> None:
    images, labels = (f"art_{name:0<20}" for name in ("images", "labels"))
    spec: dict[str, Any] = {
        "teacher": {"kind": "checkpoint", "artifact": images}, "student": {"kind": "cnn"},
        "data": {"kind": "idx", "train": {"inputs": images, "labels": labels}},
        "objective": {"terms": [{"kind": "crd", "pairs": PAIRS}]},
    }
    JobSpec.model_validate(spec)
    del spec["data"]["train"]["labels"]
    with pytest.raises(ValidationError, match="label"):
        JobSpec.model_validate(spec)
