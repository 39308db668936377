"""Progress bars of uploads and downloads; without a terminal, one line when each is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stillhouse import wording
from stillhouse.client.transfer import ProgressCallback


@contextmanager
def transfer_bar(console: Console, verb: str, name: str) -> Iterator[ProgressCallback]:
    """A callback that moves a bar; `verb` is a past tense, told with the size when all is done."""
    done = 0

    def note(received: int, _total: int | None) -> None:
        nonlocal done
        done = received

    if console.is_terminal:
        with _bar(console) as progress:
            task = progress.add_task(escape(name), total=None)

            def move(received: int, total: int | None) -> None:
                note(received, total)
                progress.update(task, completed=received, total=total)

            yield move
    else:
        yield note
    console.print(f"{verb} {escape(name)} ({wording.size(done)})")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True,
    )
