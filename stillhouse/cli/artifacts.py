"""Commands about files: upload, artifacts."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.exits import UsageError
from stillhouse.cli.output import age, answers, people, plain_table, print_json, tell
from stillhouse.cli.transfers import transfer_bars
from stillhouse.client.progress import ProgressCallback
from stillhouse.contract.resources import Artifact, UploadFormat, UploadKind

_MOST_AT_ONCE = 4


def upload(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, readable=True, help="Files to store."),
    ],
    *,
    kind: Annotated[UploadKind | None, typer.Option(help="Told from the file when left out.")] = None,
    file_format: Annotated[
        UploadFormat | None, typer.Option("--format", help="Told from the file when left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people; the file's when left out.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Store teachers or data files, several at once. Prints their ids, for use in a job spec.

    A large file that was interrupted goes on where it stopped when the command is given again.
    """
    if name is not None and len(files) > 1:
        raise UsageError("--name is for one file; leave it out, and each is called as its file is")
    with (
        connected(url, key) as client, transfer_bars(people(), "uploaded", [file.name for file in files]) as bars,
        ThreadPoolExecutor(_MOST_AT_ONCE) as pool,
    ):
        def send(file: Path, progress: ProgressCallback) -> Artifact:
            return client.upload(file, kind=kind, format=file_format, name=name, progress=progress)

        stored = list(pool.map(send, files, bars))
    if as_json:
        print_json(stored[0] if len(stored) == 1 else stored)
    else:
        for artifact in stored:
            answers().print(artifact.id)


def artifacts(
    *,
    kind: Annotated[
        str | None, typer.Option(help="Only files of this kind: teacher, data, model, soft_labels.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    delete: Annotated[str | None, typer.Option(metavar="ID", help="Delete this one instead of listing.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List stored files, newest first, or delete one."""
    with connected(url, key) as client:
        if delete:
            client.delete_artifact(delete)
            tell(f"deleted {escape(delete)}")
            return
        found = list(islice(client.artifacts(kind=kind), limit))
    if as_json:
        print_json(found)
        return
    table = plain_table("ARTIFACT", "KIND", "FORMAT", "SIZE", "CREATED", "NAME")
    for item in found:
        table.add_row(
            item.id, escape(str(item.kind)), escape(item.format), wording.size(item.size), age(item.created_at),
            escape(item.name),
        )
    if found:
        answers().print(table)
    else:
        tell("nothing is stored")

