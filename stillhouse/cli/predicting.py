"""The command that tries a compressed model."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json
from stillhouse.cli.exits import Exit, tell_error
from stillhouse.cli.output import answers, plain_table, print_json, tell
from stillhouse.contract.failures import LibraryMissingError


def predict(
    bundle: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A downloaded student.zip.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A picture, .npy, .npz or IDX file.")],
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
            "label_names": list(found.label_names),
            "predictions": [
                {"label": one.label, "index": one.index, "probability": one.probability,
                 "probabilities": list(one.probabilities)} for one in found.predictions
            ],
        })
        return
    table = plain_table("SAMPLE", "ANSWER", "PROBABILITY")
    for number, one in enumerate(islice(found.predictions, limit)):
        table.add_row(str(number), escape(one.label), wording.percent(one.probability))
    answers().print(table)
    if len(found.predictions) > limit:
        tell(f"... and {len(found.predictions) - limit:,} more; see them with --limit or --json")
