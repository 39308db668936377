"""What a recipe comes to, what a spec may replace of it, and what is said where it cannot work."""

import json
from typing import Any, get_args

import pytest

from app.jobs.spec_reading import read_spec
from stillhouse.client.api import as_sent
from stillhouse.contract.failures import InvalidSpecError, UnknownLayerError
from stillhouse.contract.recipes import applied, listed, told_where_sent
from stillhouse.contract.spec import (
    RECIPES,
    AdamW,
    JobSpec,
    Objective,
    RecipeName,
    Training,
    ViewedSoftLabels,
    misfits,
    usual_objective,
)
from stillhouse.contract.spec.recipe import CHOICES
from stillhouse.contract.spec.term import ALL_TASKS, TaskKind

ART = "art_" + "0" * 20
RECIPE_TASKS = [(name, task) for name, recipe in RECIPES.items() for task in recipe.tasks]


def sent(*, task: str = "classification", labelled: bool = True, **sections: object) -> dict[str, Any]:
    train = {"artifact": ART} if labelled else {"artifact": ART, "labels": None}
    return {
        "teacher": {"kind": "checkpoint", "artifact": ART}, "student": {"kind": "mlp"},
        "data": {"kind": "npz", "train": train}, "task": {"kind": task}, **sections,
    }


def spec(**sections: Any) -> JobSpec:  # noqa: ANN401 - any JSON
    return JobSpec.model_validate(sent(**sections))


def refused(**sections: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - any JSON
    with pytest.raises(InvalidSpecError) as caught:
        read_spec(json.dumps(sent(**sections)).encode())
    return [(error.pointer, error.detail) for error in caught.value.errors]


def test_every_name_has_its_recipe() -> None:
    assert list(RECIPES) == list(get_args(RecipeName))
    assert [recipe.name for recipe in RECIPES.values()] == list(RECIPES)
    assert CHOICES.keys() == ALL_TASKS
    assert all(task in RECIPES[name].tasks for task, name in CHOICES.items())


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("name", "task"), RECIPE_TASKS)
def test_every_recipe_is_a_valid_job_of_its_tasks(name: RecipeName, task: TaskKind, labelled: bool) -> None:
    chosen = spec(task=task, recipe=name, labelled=labelled)
    objective = chosen.effective_objective
    assert misfits(objective, task) == []
    assert objective.needs_teacher
    assert not objective.needs_labels or chosen.is_labelled
    assert (chosen.chosen_recipe.name, chosen.overrides) == (name, [])


# What a spec without a recipe means, and has meant before there were any.


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("task", sorted(ALL_TASKS))
def test_auto_is_what_a_spec_without_a_recipe_always_meant(task: TaskKind, labelled: bool) -> None:
    training = {"epochs": 7, "optimizer": {"kind": "sgd"}}
    usual = usual_objective(task, is_labelled=labelled and task != "embedding")
    for sections in ({}, {"recipe": "auto"}):
        bare = spec(task=task, labelled=labelled, **sections)
        assert bare.effective_objective == usual
        assert bare.effective_training == Training()
        assert bare.effective_soft_labels.kind == "auto"
        given = spec(task=task, labelled=labelled, training=training, **sections)
        assert given.effective_training is given.training


def test_the_defaults_of_a_training_are_those_that_were_measured() -> None:
    training = Training().model_dump(exclude_none=True)
    assert training == {
        "epochs": 30, "batch_size": 128, "optimizer": AdamW(learning_rate=4e-3).model_dump(),
        "schedule": {"kind": "one_cycle", "rise_fraction": 0.3}, "warmup_fraction": 0.0, "precision": "auto",
        "balanced_sampling": False, "evaluate_every": 1, "selection_metric": "auto", "checkpoint_seconds": 60.0,
    }


# Overriding


def test_a_named_recipe_fills_in_all_that_the_spec_leaves_out() -> None:
    recipe = RECIPES["augmented_views"]
    chosen = spec(recipe="augmented_views")
    assert chosen.effective_objective == recipe.objective
    assert chosen.effective_training == recipe.training
    assert chosen.effective_soft_labels == ViewedSoftLabels(views=8)


def test_a_given_field_of_the_training_replaces_that_field_alone() -> None:
    chosen = spec(recipe="augmented_views", training={"epochs": 3})
    expected = RECIPES["augmented_views"].training.model_copy(update={"epochs": 3})
    assert chosen.effective_training == expected
    assert chosen.overrides == ["/training/epochs"]


def test_a_value_that_is_the_default_replaces_too() -> None:
    usual = Training()
    optimizer = usual.optimizer.model_dump()
    chosen = spec(
        recipe="hinton2015",
        training={"epochs": usual.epochs, "batch_size": usual.batch_size, "optimizer": optimizer},
    )
    assert chosen.effective_training == usual
    assert chosen.overrides == ["/training/epochs", "/training/batch_size", "/training/optimizer"]


def test_null_is_a_given_value() -> None:
    chosen = spec(recipe="augmented_views", training={"augmentation": None}, soft_labels={"kind": "auto"})
    assert chosen.effective_training.augmentation is None
    assert chosen.effective_soft_labels.kind == "auto"
    assert chosen.overrides == ["/soft_labels", "/training/augmentation"]


def test_a_given_optimizer_replaces_the_recipes_as_a_whole() -> None:
    assert spec(recipe="hinton2015").effective_training.optimizer == AdamW(learning_rate=2e-3)
    chosen = spec(recipe="hinton2015", training={"optimizer": {"kind": "adamw", "beta1": 0.8}})
    assert chosen.effective_training.optimizer == AdamW(beta1=0.8)  # with the section's own step size
    assert chosen.effective_training.batch_size == 256


def test_a_given_objective_replaces_the_terms_and_nothing_else() -> None:
    chosen = spec(recipe="augmented_views", objective={"terms": [{"kind": "dkd"}]})
    assert [term.kind for term in chosen.effective_objective.terms] == ["dkd"]
    assert chosen.effective_training == RECIPES["augmented_views"].training
    assert chosen.overrides == ["/objective"]


def test_an_objective_of_null_leaves_it_to_the_recipe() -> None:
    chosen = spec(recipe="hinton2015", objective=None)
    assert chosen.effective_objective == RECIPES["hinton2015"].objective
    assert chosen.overrides == []


@pytest.mark.parametrize("sections", [
    {"recipe": "augmented_views"}, {"recipe": "hinton2015", "training": {"epochs": 30}},
    {"recipe": "augmented_views", "training": {"augmentation": None}, "soft_labels": {"kind": "online"}},
])
def test_sending_a_spec_on_leaves_its_meaning(sections: dict[str, Any]) -> None:
    first = spec(**sections)
    for copied in (as_sent(first), json.loads(first.model_dump_json(exclude_unset=True))):
        assert applied(JobSpec.model_validate(copied)) == applied(first)


def test_a_recipe_tells_nothing_of_the_teachers_own_training() -> None:
    teacher = {"kind": "train", "architecture": {"kind": "mlp"}}
    chosen = spec(recipe="hinton2015", teacher=teacher)
    assert chosen.teacher.kind == "train"
    assert chosen.teacher.training == Training()


# Misfits


@pytest.mark.parametrize(("recipe", "task", "others"), [
    ("regression", "classification", "classification, hinton2015, augmented_views"),
    ("augmented_views", "multi_label", "multi_label"),
    ("classification", "embedding", "embedding"),
])
def test_a_recipe_of_another_task_is_refused_with_those_that_fit(recipe: str, task: str, others: str) -> None:
    ((pointer, told),) = refused(recipe=recipe, task=task)
    assert pointer == "/recipe"
    assert told.startswith(f"{recipe} is a recipe for ")
    assert told.endswith(f", not for {task}; use auto or {others}")


def test_a_recipe_that_nobody_knows_is_refused_with_all_names() -> None:
    ((pointer, told),) = refused(recipe="best")
    assert pointer == "/recipe"
    assert all(f"'{name}'" in told for name in ("auto", *RECIPES))


def test_an_objective_of_another_task_is_told_beside_a_recipe_that_fits() -> None:
    ((pointer, told),) = refused(recipe="hinton2015", objective={"terms": [{"kind": "bce"}]})
    assert pointer == "/objective/terms/0"
    assert "bce is a term for multi_label" in told


@pytest.mark.parametrize(("sections", "pointer", "told"), [
    ({"training": {"augmentation": None}}, "/recipe", "give views 1, or an augmentation"),
    ({"objective": {"terms": [{"kind": "cross_entropy"}]}}, "/recipe", "add a term such as kl"),
    (
        {"training": {"augmentation": None}, "soft_labels": {"kind": "views", "views": 2}}, "/soft_labels",
        "give views 1, or an augmentation",
    ),
    ({"training": {"selection_metric": "r2"}}, "/training/selection_metric", "r2 is no score of classification"),
])
def test_what_does_not_go_with_stored_views_names_who_asks_for_them(
    sections: dict[str, Any], pointer: str, told: str
) -> None:
    ((found, detail),) = refused(recipe="augmented_views", **sections)
    assert found == pointer
    assert told in detail


def test_terms_of_layers_do_not_go_with_a_recipes_stored_views() -> None:
    pairs = [{"student": "body.0", "teacher": "body.0"}]
    objective = {"terms": [{"kind": "kl"}, {"kind": "fitnet", "pairs": pairs}]}
    ((pointer, told),) = refused(recipe="augmented_views", objective=objective)
    assert pointer == "/recipe"
    assert "use kind online" in told
    assert spec(recipe="augmented_views", objective=objective, soft_labels={"kind": "online"})


@pytest.mark.parametrize(("sections", "pointer", "told"), [
    ({}, "/objective/terms/0/pairs/0/student", "/recipe"),
    ({}, "/training/augmentation/transforms/0/pixels", "/recipe"),
    ({}, "/training/selection_metric", "/training/selection_metric"),
    ({}, "/training", "/training"),
    ({}, "/soft_labels", "/recipe"),
    ({}, "/student/hidden", "/student/hidden"),
    ({}, "/teacher/training/augmentation", "/teacher/training/augmentation"),
    ({"training": {"augmentation": {"transforms": [{"kind": "flip"}]}}}, "/training/augmentation", None),
    ({"training": {"epochs": 2}}, "/training/batch_size", "/recipe"),
    ({"objective": {"terms": [{"kind": "kl"}]}}, "/objective/terms/0", None),
    ({"soft_labels": {"kind": "online"}}, "/soft_labels", None),
])
def test_a_failure_is_told_where_the_wrong_part_came_from(
    sections: dict[str, Any], pointer: str, told: str | None
) -> None:
    with pytest.raises(UnknownLayerError) as caught, told_where_sent(spec(recipe="augmented_views", **sections)):
        raise UnknownLayerError(param=pointer)
    assert caught.value.param == (told or pointer)


# Telling


def test_every_recipe_is_listed_as_sections_that_a_spec_takes() -> None:
    for told in listed():
        recipe = RECIPES[told.name]  # type: ignore[index]  # a name of the table
        assert Objective.model_validate(told.objective) == recipe.objective
        assert Training.model_validate(told.training) == recipe.training
        sections = {name: value for name in ("objective", "training", "soft_labels") if (value := getattr(told, name))}
        pinned = applied(spec(task=recipe.tasks[0], **sections))
        chosen = applied(spec(task=recipe.tasks[0], recipe=told.name))
        assert pinned.model_dump(include=set(sections)) == chosen.model_dump(include=set(sections))
        assert told.when.endswith(".")


def test_what_was_applied_is_told_with_every_field() -> None:
    told = applied(spec(recipe="hinton2015", training={"epochs": 3}))
    assert (told.name, told.overrides) == ("hinton2015", ["/training/epochs"])
    assert told.objective["terms"][0]["temperature"] == 20.0
    assert (told.training["epochs"], told.training["batch_size"]) == (3, 256)
    assert told.training.keys() == Training.model_fields.keys()
    assert told.soft_labels == {"kind": "auto"}
    assert applied(spec(task="regression")).name == "regression"
