"""Commands that run the service on this machine: up, distill."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx
import typer
from rich.markup import escape

from stillhouse.cli import drafting, jobs
from stillhouse.cli.connecting import Key, Url
from stillhouse.cli.output import people, tell
from stillhouse.client import Client
from stillhouse.home import find_service, local_address
from stillhouse.local.service import DEFAULT_PORT, LocalService, running

Home = Annotated[
    Path | None,
    typer.Option(envvar="STILLHOUSE_HOME", help="Folder for everything it keeps. Left out: .stillhouse, here."),
]


def up(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = DEFAULT_PORT,
    home: Home = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that run side by side.")] = 1,
) -> None:
    """Run the whole service on this machine until Ctrl-C: database, queue, API and worker."""
    with (
        signals_interrupt(),
        started(home, port=port, workers=workers) as local,
        suppress(KeyboardInterrupt),
    ):
        _print_summary(local)
        local.watch(should_stop=lambda: False)


def distill(
    teacher: Annotated[str, typer.Argument(help="Checkpoint (.safetensors, .pt), or id of an uploaded one.")],
    *,
    student: drafting.Student,
    data: drafting.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the bundle.")] = Path("student.zip"),
    teacher_architecture: drafting.TeacherArchitecture = None,
    name: drafting.Name = None,
    label: drafting.Label = None,
    task: drafting.Task = None,
    recipe: drafting.Recipe = None,
    epochs: drafting.Epochs = None,
    temperature: drafting.Temperature = None,
    seed: drafting.Seed = None,
    no_control: drafting.NoControl = False,
    device: drafting.Device = None,
    devices: drafting.Devices = None,
    max_runtime: drafting.MaxRuntime = None,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Distil a teacher into a student, start to end: upload, train, download.

    Uses the service that runs here, or starts one for as long as it takes.
    """
    draft = drafting.draft(
        teacher=teacher, student=student, data=data, teacher_architecture=teacher_architecture, name=name, label=label,
        task=task, recipe=recipe, epochs=epochs, temperature=temperature, seed=seed, no_control=no_control,
        device=device, devices=devices, max_runtime=max_runtime,
    )
    with signals_interrupt(), _some_service(url, key, home) as (client, is_ours):
        job = client.submit(draft.uploaded(client))
        jobs.end_as(jobs.follow_job(job, _farewell(job.id) if is_ours else None))
        saved = jobs.fetch(job, output)
        jobs.print_report(job)
        tell(f"The compressed model is {escape(str(saved))}; try it: stillhouse predict {saved} FILE")


@contextmanager
def _some_service(url: str | None, key: str | None, home: Path | None) -> Iterator[tuple[Client, bool]]:
    """A client of the service that is meant or runs here, else of one that lives as long as this command."""
    local = local_address(home)
    named = find_service(url, key, home)
    if named is not None and (local is None or named.url != local.url or _answers(named.url)):
        with Client(named.url, named.key) as client:
            yield client, False
        return
    with started(home, port=0, workers=1) as ours, Client(ours.url, ours.key) as client:
        yield client, True


@contextmanager
def started(home: Path | None, *, port: int, workers: int) -> Iterator[LocalService]:
    """A local service, with a line about what it is doing."""
    console = people()
    with console.status("starting the service") as status:

        def tell(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text)

        with running(home, port=port, workers=workers, tell=tell) as local:
            status.stop()
            try:
                yield local
            finally:
                status.start()


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Have SIGTERM and the loss of the terminal stop everything as Ctrl-C does."""
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, _interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _farewell(job_id: str) -> str:
    return (
        "Stopping, and with it the service that this command started. The job keeps its checkpoint. To go on with it: "
        f"stillhouse up, and in another terminal: stillhouse watch {job_id}"
    )


def _print_summary(local: LocalService) -> None:
    lines = (
        f"[bold green]Stillhouse is ready[/] at [bold]{local.url}[/]",
        f"  key    {escape(str(local.home / 'token'))} (commands run in this folder find it by themselves)",
        f"  logs   {escape(str(local.home / 'logs'))}",
        f"  API    {local.url}/docs",
        "Try next, in another terminal:",
        "  stillhouse distill TEACHER.safetensors --student mlp:64 --data FOLDER -o student.zip",
        "  stillhouse list",
        "Ctrl-C stops it.",
    )
    for line in lines:
        tell(line)
