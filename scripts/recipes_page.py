"""Write docs/recipes.md, and what the benchmarks measured of each recipe. Run by `make docs`; a test compares both."""

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from stillhouse import wording
from stillhouse.client.api import as_sent
from stillhouse.contract.recipes import MEASURED, applied, evidence
from stillhouse.contract.resources import Evidence
from stillhouse.contract.spec import RECIPES, JobSpec, Recipe
from stillhouse.contract.spec.recipe import CHOICES, Claim

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
RESULTS = ROOT / "benchmarks" / "results"
_SECTIONS = frozenset({"objective", "training", "soft_labels"})
# Fields of a training that say how it is run and watched, and no recipe gives.
_OF_THE_RUN = frozenset({"precision", "evaluate_every", "checkpoint_seconds"})
_ARTIFACT = "art_" + 20 * "0"
_BARE = {
    "teacher": {"kind": "checkpoint", "artifact": _ARTIFACT}, "student": {"kind": "mlp"},
    "data": {"kind": "idx", "train": {"inputs": _ARTIFACT, "labels": _ARTIFACT}},
}

HEAD = """\
# Recipes

<!-- Written by `make docs` from stillhouse/contract/spec/recipe.py and benchmarks/results: change it there. -->

`recipe` of the job spec names an objective and training settings that belong together. `auto`, the default, takes the
task's usual one. `GET /recipes`, `Client.recipes()` and `stillhouse recipes` list them with what was measured.

A spec may replace any part:

- `objective` replaces the recipe's terms as a whole. Terms that need labels are left out of a recipe's own on
  unlabelled data.
- Each field that `training` gives replaces that field and no other. A given `optimizer`, `schedule`, `augmentation` or
  `early_stopping` replaces the recipe's as a whole: what it leaves out is the default that `GET /schemas/job` tells,
  not the recipe's. `null` counts as given.
- `soft_labels` replaces the recipe's, where it has an own.

`teacher.training` is no part of a recipe, and neither are seed, student and data. What counts is what was sent: a spec
with every default written out replaces every part.

The job keeps the spec as it was sent. `recipe` of `GET /jobs/{id}`, of the plan and of the report, and the note
`recipe` in the job's log, tell which recipe it was, what it came to and what the spec replaced. Where a recipe is the
cause of a mistake, the error points to `/recipe`.

A recipe may change between releases where something better was measured. The report tells what was trained; give the
parts in the spec to pin them.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_overview(), "", *(section(recipe) for recipe in RECIPES.values())])


def section(recipe: Recipe) -> str:
    """What the page says of one recipe."""
    return "\n".join([
        f"## `{recipe.name}`", "", recipe.when, "", "```json", f"{{\n{_in_lines(_settings(recipe))}\n}}", "```", "",
        *_measured(recipe),
    ])


def measured(folder: Path = RESULTS) -> dict[str, list[Evidence]]:
    """What the results at hand say of each recipe; of results of other settings nothing."""
    return {
        recipe.name: [
            evidence(claim, results) for claim in recipe.claims
            if (results := _results_of(claim, folder)) and was_trained(recipe, claim, results)
        ]
        for recipe in RECIPES.values()
    }


def was_trained(recipe: Recipe, claim: Claim, results: dict[str, Any]) -> bool:
    """Whether the results tell that just this recipe was trained."""
    trained = reduce(lambda found, key: found.get(key, {}), claim.settings.split("."), results)
    sections = {name: section for name, section in trained.items() if name in _SECTIONS}
    return "objective" in sections and _comes_to(recipe, sections) == _comes_to(recipe, {"recipe": recipe.name})


def _results_of(claim: Claim, folder: Path) -> dict[str, Any] | None:
    file = folder / f"{claim.benchmark}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def _comes_to(recipe: Recipe, sections: dict[str, Any]) -> dict[str, Any]:
    """What a labelled job with these sections would train, every field."""
    spec = JobSpec.model_validate({**_BARE, "task": {"kind": recipe.tasks[0]}, **sections})
    told = applied(spec)
    training = {name: value for name, value in told.training.items() if name not in _OF_THE_RUN}
    return {"objective": told.objective, "training": training, "soft_labels": told.soft_labels}


def _in_lines(settings: dict[str, Any]) -> str:
    """JSON of a section on each line."""
    return ",\n".join(f'  "{name}": {json.dumps(section)}' for name, section in settings.items())


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as sections of a job spec; of the training what the recipe itself says."""
    settings: dict[str, Any] = {"objective": recipe.objective.model_dump(mode="json", exclude_none=True)}
    if recipe.training.model_fields_set:
        settings["training"] = as_sent(recipe.training)
    if recipe.soft_labels is not None:
        settings["soft_labels"] = as_sent(recipe.soft_labels)
    return settings


def as_text() -> str:
    """What is written beside the contract."""
    told = {name: [item.model_dump(mode="json") for item in found] for name, found in measured().items()}
    return json.dumps(told, indent=1) + "\n"


def _overview() -> Iterator[str]:
    yield "| recipe | tasks | `auto` takes it for | measured |"
    yield "|---|---|---|---|"
    for recipe in RECIPES.values():
        chosen = ", ".join(task for task, name in CHOICES.items() if name == recipe.name)
        found = ", ".join(f"`{item.benchmark}`" for item in measured()[recipe.name])
        yield f"| [`{recipe.name}`](#{recipe.name}) | {', '.join(recipe.tasks)} | {chosen} | {found or 'not yet'} |"


def _measured(recipe: Recipe) -> Iterator[str]:
    found = measured()[recipe.name]
    if not found:
        yield "Not measured yet.\n"
    for item in found:
        yield f"Measured {item.date} by `python -m benchmarks.{item.benchmark}`: {item.what}.\n"
        yield "| | mean | by seed |"
        yield "|---|---|---|"
        for figure in item.figures:
            mean = wording.value(sum(figure.values) / len(figure.values))
            by_seed = ", ".join(f"{value:g}" for value in figure.values) if len(figure.values) > 1 else ""
            yield f"| {figure.name} | {mean} | {by_seed} |"
        yield ""


if __name__ == "__main__":
    MEASURED.write_text(as_text(), "utf-8")
    PAGE.write_text(page(), "utf-8")
