"""`stillhouse recipes`: what a job may be trained by."""

from collections.abc import Iterable, Iterator

from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.output import answers, print_json
from stillhouse.contract.resources import Evidence, ListedRecipe


def recipes(*, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """List the recipes that a job may name, with what was measured of them."""
    with connected(url, key) as client:
        found = client.recipes()
    if as_json:
        print_json(found)
        return
    for line in _lines(found):
        answers().print(line)


def _lines(found: Iterable[ListedRecipe]) -> Iterator[str]:
    for recipe in found:
        chosen = f", chosen for {', '.join(recipe.chosen_for)}" if recipe.chosen_for else ""
        yield f"[bold]{escape(recipe.name)}[/] [dim]for {escape(', '.join(recipe.tasks))}{escape(chosen)}[/]"
        yield f"  {escape(recipe.when)}"
        yield f"  terms: {escape(', '.join(_term(term) for term in recipe.objective.get('terms', [])))}"
        for told in recipe.evidence:
            yield f"  measured: {escape(_evidence(told))}"
        if not recipe.evidence:
            yield "  not measured yet"


def _term(term: dict[str, object]) -> str:
    temperature = f" at T = {term['temperature']}" if "temperature" in term else ""
    return f"{term.get('weight', 1.0)} {term.get('kind')}{temperature}"


def _evidence(told: Evidence) -> str:
    figures = "; ".join(f"{figure.name} {wording.measured(figure.values)}" for figure in told.figures)
    return f"{told.what} ({told.date}): {figures}"
