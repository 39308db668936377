"""Recipes as they are told: listed with their evidence, and what one came to in a job."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.report import AppliedRecipe
from stillhouse.contract.resources import Evidence, Figure, ListedRecipe
from stillhouse.contract.spec import RECIPES, JobSpec, Recipe
from stillhouse.contract.spec.recipe import CHOICES, Claim

# What the benchmarks' results say of the claims, written by `make docs`; the results stay behind in the repository.
MEASURED: Final = Path(__file__).with_name("measured.json")


def listed() -> list[ListedRecipe]:
    """Every recipe, with what was measured of it."""
    return [_listed(recipe) for recipe in RECIPES.values()]


def applied(spec: JobSpec) -> AppliedRecipe:
    """What the spec's recipe and its own words come to."""
    return AppliedRecipe(
        name=spec.chosen_recipe.name,
        overrides=spec.overrides,
        objective=spec.effective_objective.model_dump(mode="json"),
        training=spec.effective_training.model_dump(mode="json"),
        soft_labels=spec.effective_soft_labels.model_dump(mode="json"),
    )


@contextmanager
def told_where_sent(spec: JobSpec) -> Iterator[None]:
    """Failures inside name the recipe where it, and not the spec itself, gave what is wrong."""
    try:
        yield
    except StillhouseError as error:
        if error.param is not None:
            error.param = spec.sent_pointer(error.param)
        raise


def evidence(claim: Claim, results: Mapping[str, Any]) -> Evidence:
    """What a benchmark's results say of the claim. Raises KeyError where they lack a figure."""
    return Evidence(
        benchmark=claim.benchmark,
        what=claim.what,
        file=f"benchmarks/results/{claim.benchmark}.json",
        date=results["date"],
        seeds=results["seeds"],
        figures=[Figure(name=name, values=_values(results[key])) for name, key in claim.figures.items()],
    )


def _listed(recipe: Recipe) -> ListedRecipe:
    return ListedRecipe(
        name=recipe.name,
        tasks=list(recipe.tasks),
        chosen_for=[task for task, name in CHOICES.items() if name == recipe.name],
        when=recipe.when,
        objective=recipe.objective.model_dump(mode="json"),
        training=recipe.training.model_dump(mode="json"),
        soft_labels=None if recipe.soft_labels is None else recipe.soft_labels.model_dump(mode="json"),
        evidence=[Evidence.model_validate(told) for told in _measured().get(recipe.name, [])],
    )


@cache
def _measured() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(MEASURED.read_text("utf-8"))
    return found


def _values(found: float | list[float]) -> list[float]:
    return found if isinstance(found, list) else [found]
