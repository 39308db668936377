"""A spec drafted from options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.cli.drafting import draft
from stillhouse.cli.exits import UsageError
from stillhouse.contract.spec.term import TaskKind

TEACHER = "art_" + 20 * "a"


def drafted(folder: Path, *, labelled: bool = True, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any option
    arrays: dict[str, Any] = {"labels": np.zeros((4, 2))} if labelled else {}
    np.savez(folder / "train.npz", inputs=np.zeros((4, 2)), **arrays)
    return dict(draft(teacher=TEACHER, student="mlp:4", data=folder, **options).rest)


def test_a_task_is_written_into_the_spec(tmp_path: Path) -> None:
    assert drafted(tmp_path, task="regression")["task"] == {"kind": "regression"}
    assert "task" not in drafted(tmp_path)


@pytest.mark.parametrize(
    ("task", "labelled", "terms"),
    [
        (None, True, [{"kind": "kl", "temperature": 3.0}, {"kind": "cross_entropy", "weight": 0.5}]),
        ("multi_label", True, [{"kind": "bce", "temperature": 3.0}, {"kind": "binary_cross_entropy", "weight": 0.5}]),
        ("multi_label", False, [{"kind": "bce", "temperature": 3.0}]),
    ],
)
def test_a_temperature_softens_the_usual_objective(
    tmp_path: Path, task: TaskKind | None, labelled: bool, terms: list[dict[str, Any]]
) -> None:
    assert drafted(tmp_path, labelled=labelled, task=task, temperature=3.0)["objective"] == {"terms": terms}


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_a_temperature_without_probabilities_is_refused(tmp_path: Path, task: TaskKind) -> None:
    with pytest.raises(UsageError, match=f"--temperature softens probabilities, and {task} has none"):
        drafted(tmp_path, task=task, temperature=3.0)


def test_several_devices_are_asked_for_only_where_they_are_named(tmp_path: Path) -> None:
    assert drafted(tmp_path, device="cuda", devices=2).items() >= {"device": "cuda", "devices": 2}.items()
    assert "devices" not in drafted(tmp_path)


def test_a_limit_of_run_time_is_written_into_the_spec(tmp_path: Path) -> None:
    assert drafted(tmp_path, max_runtime=90.0)["max_runtime"] == 90
    assert "max_runtime" not in drafted(tmp_path)


def test_a_priority_is_written_into_the_spec_also_when_it_is_0(tmp_path: Path) -> None:
    assert drafted(tmp_path, priority=0)["priority"] == 0
    assert "priority" not in drafted(tmp_path)


def test_a_recipe_is_written_into_the_spec(tmp_path: Path) -> None:
    assert drafted(tmp_path, recipe="hinton2015")["recipe"] == "hinton2015"
    assert "recipe" not in drafted(tmp_path)


def test_a_temperature_softens_the_named_recipes_objective(tmp_path: Path) -> None:
    objective = drafted(tmp_path, recipe="augmented_views", temperature=3.0)["objective"]
    assert objective == {"terms": [{"kind": "kl", "temperature": 3.0}]}
