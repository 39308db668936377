"""The command that tries a compressed model."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from stillhouse import wording
from stillhouse.cli.connecting import Json
from stillhouse.cli.exits import Exit, tell_error
from stillhouse.cli.output import answers, plain_table, print_json, tell
from stillhouse.contract.failures import LibraryMissingError

if TYPE_CHECKING:
    from stillhouse.models.answers import Answer
    from stillhouse.predict import Answers

# Targets and dimensions that a line has room for.
MAX_SHOWN: Final = 6


def predict(
    bundle: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A downloaded student.zip.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A picture, .npy, .npz, IDX or CSV file.")],
    *,
    array: Annotated[str | None, typer.Option(help="Array of an NPZ file; `inputs` when left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many answers; --json gives all.")] = 20,
    as_json: Json = False,
) -> None:
    """Answer for each sample of a file with a compressed model, on this machine."""
    try:
        from stillhouse.models.bundle import InvalidBundleError  # noqa: PLC0415 - loads torch
        from stillhouse.predict import UnusableInputError, predict_file  # noqa: PLC0415 - loads torch
    except ModuleNotFoundError as error:
        tell_error(f"the package {error.name} is not installed", "Install it: pip install 'stillhouse[models]'")
        raise typer.Exit(Exit.FAILED) from error
    try:
        found = predict_file(bundle, file, array=array)
    except (InvalidBundleError, UnusableInputError, LibraryMissingError) as error:
        tell_error(str(error))
        raise typer.Exit(Exit.FAILED) from error
    if found.note:
        tell(escape(found.note))
    if as_json:
        print_json({
            "task": found.task.model_dump(mode="json"), "label_names": list(found.label_names),
            "predictions": [asdict(one) for one in found.predictions],
        })
        return
    answers().print(_table(found, limit))
    if len(found.predictions) > limit:
        tell(f"... and {len(found.predictions) - limit:,} more; see them with --limit or --json")


def _table(found: "Answers", limit: int) -> Table:
    columns = {
        "classification": ["ANSWER", "PROBABILITY"], "multi_label": ["LABELS AND THEIR PROBABILITIES"],
        "regression": _few([escape(name) for name in found.label_names]), "embedding": ["VECTOR"],
    }[found.task.kind]
    table = plain_table("SAMPLE", *columns)
    for number, one in enumerate(islice(found.predictions, limit)):
        table.add_row(str(number), *_cells(one))
    return table


def _cells(answer: "Answer") -> Iterable[str]:
    from stillhouse.models.answers import LabelSet, Prediction, TargetValues  # noqa: PLC0415 - loads torch

    if isinstance(answer, Prediction):
        return [escape(answer.label), wording.percent(answer.probability)]
    if isinstance(answer, LabelSet):
        held = [f"{escape(name)} {wording.percent(chance, 1)}" for name, chance in answer.labels.items()]
        return [", ".join(held) or wording.MISSING]
    if isinstance(answer, TargetValues):
        return _few([wording.value(value) for value in answer.values.values()])
    return [", ".join(_few([wording.value(value) for value in answer.values]))]


def _few(cells: Sequence[str]) -> list[str]:
    """What a line has room for, and how much more there is."""
    more = len(cells) - MAX_SHOWN
    return list(cells) if more <= 0 else [*cells[:MAX_SHOWN], f"... {more} more"]
