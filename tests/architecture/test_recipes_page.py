"""docs/recipes.md and the figures that GET /recipes tells are what code and benchmarks say."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.recipes_page import PAGE, RESULTS, as_text, measured, page
from stillhouse.contract.recipes import MEASURED, applied, listed
from stillhouse.contract.report import AppliedRecipe
from stillhouse.contract.spec import RECIPES, JobSpec, Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the benchmarks' results."""
    return Path(shutil.copytree(RESULTS, tmp_path / "results"))


def change(file: Path, **values: Any) -> None:  # noqa: ANN401 - any JSON
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


def test_the_figures_beside_the_contract_are_those_of_the_results() -> None:
    assert MEASURED.read_text("utf-8") == as_text(), "run `make docs`"


def test_every_quoted_figure_is_one_of_the_results() -> None:
    found = [told for recipe in listed() for told in recipe.evidence]
    assert {told.benchmark for told in found} >= {"mnist_gain"}
    for told in found:
        results = json.loads((ROOT / told.file).read_text())
        assert (told.date, told.seeds) == (results["date"], results["seeds"])
        in_results = [value if isinstance(value, list) else [value] for value in results.values()]
        assert all(figure.values in in_results for figure in told.figures)


def test_another_result_is_another_figure(results: Path) -> None:
    change(results / "mnist_gain.json", mean_gain=0.5)
    (told,) = measured(results)["classification"]
    assert [figure.values for figure in told.figures if figure.name.startswith("mean gain")] == [[0.5]]
    assert told != measured()["classification"][0]


def test_what_was_not_run_is_no_evidence(results: Path) -> None:
    (results / "mnist_gain.json").unlink()
    assert measured(results)["classification"] == []


def trained(results: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((results / "mnist_gain.json").read_text())["recipe"]
    return told


@pytest.mark.parametrize("other", [
    {"objective": {"terms": [{"kind": "kl", "temperature": 3.0}]}}, {"training": {"epochs": 31}},
    {"soft_labels": {"kind": "online"}},
])
def test_results_of_other_settings_are_no_evidence(results: Path, other: dict[str, Any]) -> None:
    change(results / "mnist_gain.json", recipe=trained(results) | other)
    assert measured(results)["classification"] == []


def test_results_that_do_not_tell_what_was_trained_are_no_evidence(results: Path) -> None:
    change(results / "mnist_gain.json", recipe={"training": trained(results)["training"]})
    assert measured(results)["classification"] == []


def test_how_a_training_was_watched_is_no_matter(results: Path) -> None:
    told = trained(results)
    training = told["training"] | {"precision": "bfloat16", "evaluate_every": 30, "checkpoint_seconds": 9.0}
    change(results / "mnist_gain.json", recipe=told | {"training": training})
    assert measured(results) == measured()


def test_no_recipe_says_how_a_training_is_watched() -> None:
    given = {name for recipe in RECIPES.values() for name in recipe.training.model_fields_set}
    assert not given & {"precision", "evaluate_every", "checkpoint_seconds"}


def test_a_benchmark_that_is_run_later_becomes_evidence(results: Path) -> None:
    recipe = RECIPES["augmented_views"]
    (claim,) = recipe.claims
    told = {name: getattr(applied_to(recipe), name) for name in ("objective", "training", "soft_labels")}
    numbers = {key: [70, 72] for key in claim.figures.values()}
    (results / "hinton.json").write_text(json.dumps(
        {"date": "2030-01-01", "seeds": [0, 1], "recipes": {"views": told}, **numbers}
    ))
    found = measured(results)
    assert [(item.benchmark, item.date) for item in found["augmented_views"]] == [("hinton", "2030-01-01")]
    assert [figure.values for figure in found["augmented_views"][0].figures] == [[70, 72]] * 3
    assert found["hinton2015"] == []


def applied_to(recipe: Recipe) -> AppliedRecipe:
    art = "art_" + "0" * 20
    return applied(JobSpec.model_validate({
        "teacher": {"kind": "checkpoint", "artifact": art}, "student": {"kind": "mlp"},
        "data": {"kind": "npz", "train": {"artifact": art}}, "recipe": recipe.name,
    }))


def test_api_and_engine_look_at_what_a_recipe_came_to_not_at_what_was_sent() -> None:
    code = [*ROOT.glob("app/**/*.py"), *ROOT.glob("worker/**/*.py")]
    raw = re.compile(r"spec\.(training|objective|soft_labels)\b(?!\w)")
    # Whether the views are the spec's own wish is what the log tells.
    allowed = {("mode.py", 'whose = "spec" if chosen is spec.soft_labels else "recipe"')}
    found = {
        (path.name, line.strip()) for path in code for line in path.read_text().splitlines()
        if raw.search(line) and "import" not in line
    }
    assert found == allowed
