"""What an objective refuses, and what fits which task."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from stillhouse.contract.spec import JobSpec, Objective, Term, misfits, usual_objective, without_logits
from stillhouse.contract.spec.term import BaseTerm, TaskKind

KINDS: list[type[BaseTerm]] = list(get_args(get_args(Term)[0]))
TASKS: tuple[TaskKind, ...] = get_args(TaskKind)


def objective(*terms: dict[str, Any]) -> Objective:
    return Objective.model_validate({"terms": list(terms)})


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ([{"kind": "kl"}, {"kind": "kl"}], "two terms are called kl; give one of them a name of its own"),
        ([{"kind": "kl", "name": "mse"}, {"kind": "mse"}], "two terms are called mse"),
        ([{"kind": "kl", "name": "a"}, {"kind": "mse", "name": "a", "weight": 0}], "two terms are called a"),
        ([{"kind": "kl", "weight": 0}, {"kind": "mse", "weight": 0}], "give one term a weight above 0"),
        ([{"kind": "dkd", "alpha": 0, "beta": 0}], "give one of them a value above 0"),
        ([{"kind": "dist", "beta": 0, "gamma": 0}], "give one of them a value above 0"),
        ([{"kind": "kl", "temperature_ramp": {"kind": "linear"}}], "must start and end above 0"),
        ([{"kind": "js", "beta": 0}], "greater than 0"),
        ([{"kind": "js", "beta": 1}], "less than 1"),
        ([{"kind": "ttm", "gamma": 0}], "greater than 0"),
        ([{"kind": "wttm", "gamma": 1.5}], "less than or equal to 1"),
        ([{"kind": "nkd", "gamma": -1}], "greater than or equal to 0"),
        ([{"kind": "huber", "delta": 0}], "greater than 0"),
        ([{"kind": "binary_cross_entropy", "positive_weight": 0}], "greater than 0"),
        ([{"kind": "mse", "temperature": 2}], "Extra inputs"),
        ([{"kind": "kl", "standardize": 1}], "valid boolean"),
    ],
    ids=str,
)
def test_an_objective_that_cannot_work_is_refused(terms: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        objective(*terms)


def test_the_same_kind_twice_is_fine_with_a_name() -> None:
    assert len(objective({"kind": "kl"}, {"kind": "kl", "name": "softer", "temperature": 8}).active) == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_term_says_what_it_is_and_how_large_it_may_be(kind: type[BaseTerm]) -> None:
    for name, field in kind.model_json_schema()["properties"].items():
        assert name == "kind" or field["description"]
        assert name == "kind" or "default" in field or name in kind.model_json_schema()["required"]
        if field.get("type") in {"number", "integer"}:
            assert {"minimum", "exclusiveMinimum"} & field.keys(), name
            assert {"maximum", "exclusiveMaximum"} & field.keys(), name


@pytest.mark.parametrize(
    ("terms", "task", "told"),
    [
        ([{"kind": "kl"}, {"kind": "cross_entropy"}], "classification", {}),
        ([{"kind": "bce"}, {"kind": "binary_cross_entropy"}, {"kind": "mse"}], "multi_label", {}),
        ([{"kind": "mse"}, {"kind": "squared_error"}, {"kind": "huber"}], "regression", {}),
        ([{"kind": "mse"}], "embedding", {}),
        ([{"kind": "mse"}, {"kind": "kl"}, {"kind": "cross_entropy"}], "multi_label", {
            1: "kl is a term for classification, not for multi_label; use bce",
            2: "cross_entropy is a term for classification, not for multi_label; use binary_cross_entropy",
        }),
        ([{"kind": "bce"}, {"kind": "squared_error"}], "classification", {
            0: "bce is a term for multi_label, not for classification; use kl",
            1: "squared_error is a term for regression, not for classification; use cross_entropy",
        }),
        ([{"kind": "dkd"}, {"kind": "cross_entropy"}], "regression", {
            0: "dkd is a term for classification, not for regression; use mse",
            1: "cross_entropy is a term for classification, not for regression; use squared_error",
        }),
        ([{"kind": "mse"}, {"kind": "huber"}], "embedding", {
            1: "huber is a term for regression, not for embedding; leave it out, for there are no true labels",
        }),
        # What has no weight is not trained.
        ([{"kind": "kl", "weight": 0}, {"kind": "mse"}], "regression", {}),
    ],
)
def test_terms_that_do_not_fit_a_task_are_told_with_what_to_use(
    terms: list[dict[str, Any]], task: TaskKind, told: dict[int, str]
) -> None:
    assert misfits(objective(*terms), task) == list(told.items())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "js", "dkd", "dist", "nkd", "ttm", "wttm", "cross_entropy"])
def test_terms_on_a_softmax_are_for_classification_alone(kind: str, task: TaskKind) -> None:
    assert (misfits(objective({"kind": kind}), task) == []) == (task == "classification")


def test_terms_that_need_logits_are_told_with_what_to_use() -> None:
    terms: list[dict[str, Any]] = [
        {"kind": "kl"}, {"kind": "kl", "name": "z", "standardize": True}, {"kind": "mse"}, {"kind": "dist"},
        {"kind": "dkd"}, {"kind": "nkd", "weight": 0}, {"kind": "cross_entropy"},
    ]
    assert without_logits(objective(*terms)) == [
        (1, "logits cannot be standardised where the teacher gives probabilities; set standardize to false"),
        (2, "mse needs logits, and this teacher gives probabilities; use kl"),
        (4, "dkd needs logits, and this teacher gives probabilities; use kl"),
    ]
    assert without_logits(objective({"kind": "mse"}), "multi_label") == [
        (0, "mse needs logits, and this teacher gives probabilities; use bce")
    ]


@pytest.mark.parametrize("task", TASKS)
def test_the_usual_objective_fits_its_task(task: TaskKind) -> None:
    unlabelled, labelled = usual_objective(task, is_labelled=False), usual_objective(task, is_labelled=True)
    assert misfits(unlabelled, task) == misfits(labelled, task) == []
    assert not unlabelled.needs_labels
    assert labelled.needs_labels == (task != "embedding")
    assert labelled.needs_teacher


def test_what_needs_one_true_class_needs_labels_and_a_softmax() -> None:
    picky = {kind.model_fields["kind"].default for kind in KINDS if kind.needs_true_class}
    assert picky == {"dkd", "nkd", "crd"}
    assert all(kind.needs_labels for kind in KINDS if kind.needs_true_class)


def test_the_term_that_needs_labels_is_named_where_there_are_none() -> None:
    spec = {
        "teacher": {"kind": "checkpoint", "artifact": "art_" + 20 * "a"},
        "student": {"kind": "mlp"},
        "data": {"kind": "idx", "train": {"inputs": "art_" + 20 * "b"}},
        "objective": {"terms": [{"kind": "kl"}, {"kind": "cross_entropy", "weight": 0}, {"kind": "dkd"}]},
    }
    with pytest.raises(ValidationError, match=r"objective.terms.2\n  dkd reads labels, but data.train has no labels"):
        JobSpec.model_validate(spec)


def test_a_term_survives_json() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Term)
    for kind in KINDS:
        if "pairs" not in kind.model_fields or not kind.model_fields["pairs"].is_required():
            term = kind()
            assert adapter.validate_json(term.model_dump_json()) == term
