"""Progress bars of uploads and downloads; without a terminal, one line when each is done."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stillhouse import wording
from stillhouse.client.progress import ProgressCallback


@contextmanager
def transfer_bar(console: Console, verb: str, name: str) -> Iterator[ProgressCallback]:
    """A callback that moves a bar; `verb` is a past tense, told with the size when all is done."""
    with transfer_bars(console, verb, [name]) as (move,):
        yield move


@contextmanager
def transfer_bars(console: Console, verb: str, names: Sequence[str]) -> Iterator[list[ProgressCallback]]:
    """A callback and a bar for each of several transfers side by side."""
    done = dict.fromkeys(range(len(names)), 0)

    def mover(number: int, show: ProgressCallback | None) -> ProgressCallback:
        def move(received: int, total: int | None) -> None:
            done[number] = received
            if show is not None:
                show(received, total)

        return move

    if console.is_terminal:
        with _bar(console) as progress:
            tasks = [progress.add_task(escape(name), total=None) for name in names]
            yield [mover(number, _shower(progress, task)) for number, task in enumerate(tasks)]
    else:
        yield [mover(number, None) for number in range(len(names))]
    for name, received in zip(names, done.values(), strict=True):
        console.print(f"{verb} {escape(name)} ({wording.size(received)})")


def _shower(progress: Progress, task: TaskID) -> ProgressCallback:
    return lambda received, total: progress.update(task, completed=received, total=total)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True,
    )
