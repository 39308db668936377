"""Commands about jobs: submit, watch, list, show, cancel, download, report, logs."""

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from stillhouse.cli import drafting
from stillhouse.cli.connecting import JobId, Json, Key, Url, connected, find_job
from stillhouse.cli.exits import Exit, UsageError, tell_failure
from stillhouse.cli.following import follow
from stillhouse.cli.interrupts import heeding_interrupts
from stillhouse.cli.output import (
    age,
    answers,
    attempt_table,
    checkpoint_table,
    coloured,
    duration,
    job_table,
    people,
    plain_table,
    print_json,
    report_table,
    stage,
    tell,
)
from stillhouse.cli.shorthand import labels
from stillhouse.cli.transfers import transfer_bar
from stillhouse.client import JobHandle
from stillhouse.contract.resources import Checkpoint, Job, ModelFormat
from stillhouse.contract.status import Status
from stillhouse.wording import gain_sentence, interruption_sentence, verdict

Output = Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write to.")]
# The options of `submit` that draft a spec.
_DRAFTED = frozenset(inspect.signature(drafting.draft).parameters)
_DONE = {"cancel": "cancelled", "pause": "paused", "resume": "resumed", "retry": "retried"}
_ENDS = {Status.SUCCEEDED: Exit.OK, Status.CANCELLED: Exit.CANCELLED}


def submit(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE.json]", help="A job spec, or `-` for standard input.")
    ] = None,
    *,
    teacher: Annotated[str | None, typer.Option(help="Instead of a spec: checkpoint, or id of a stored one.")] = None,
    student: drafting.Student = "mlp:64",
    data: Annotated[Path | None, typer.Option(help="Instead of a spec: folder of IDX or NPZ files, or a file.")] = None,
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
    priority: drafting.Priority = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key gives the same job, not another.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Queue a job, from a spec in a JSON file or from options. Prints the job's id."""
    if (file is None) == (teacher is None):
        raise UsageError("give either a job spec (FILE.json) or --teacher with --student and --data")
    if file is not None:
        refuse_beside_spec(context)
        spec = read_spec(file)
    elif data is None:
        raise UsageError("--teacher needs --data as well: a folder of IDX or NPZ files, or one NPZ file")
    with connected(url, key) as client:
        if file is None and teacher is not None and data is not None:
            spec = drafting.draft(
                teacher=teacher, student=student, data=data, teacher_architecture=teacher_architecture, name=name,
                label=label, task=task, recipe=recipe, epochs=epochs, temperature=temperature, seed=seed,
                no_control=no_control, device=device, devices=devices, max_runtime=max_runtime, priority=priority,
            ).uploaded(client)
        _queued(client.submit(spec, idempotency_key=idempotency_key), watch=watch, as_json=as_json)


def _queued(job: JobHandle, *, watch: bool, as_json: bool) -> None:
    """Tell of a new job, and watch it where that is wanted."""
    print_json(job.job) if as_json else answers().print(job.id)
    if watch:
        end_as(follow_job(job))
    elif not as_json:
        tell(f"queued. Follow it: stillhouse watch {job.id}")


def refuse_beside_spec(context: typer.Context) -> None:
    """What a spec file tells, no option may tell as well: one of the two would be ignored. Raises UsageError."""
    given = [
        parameter.opts[0] for parameter in context.command.params
        if parameter.name in _DRAFTED and _was_typed(context, parameter.name)
    ]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be given beside a job spec; write it into the file")


def _was_typed(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def watch(
    job: JobId = "last", *, as_json: Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")] = False,
    url: Url = None, key: Key = None,
) -> None:
    """Show a job as it runs, until it ends. Ctrl-C stops watching, not the job."""
    with connected(url, key) as client:
        handle = find_job(client, job)
        end_as(_follow_as_json(handle) if as_json else follow_job(handle))


def list_jobs(
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this label.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    with connected(url, key) as client:
        jobs = list(islice(client.jobs(status=status, name=name, label=labels(label or [])), limit))
    if as_json:
        print_json(jobs)
    elif jobs:
        answers().print(job_table(jobs))
    else:
        tell("no jobs")


def show(job: JobId = "last", *, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show where a job stands."""
    with connected(url, key) as client:
        found = find_job(client, job).job
    if as_json:
        print_json(found)
    else:
        _print_job(found)


def cancel(
    job: JobId, *,
    keep: Annotated[
        Literal["best", "none"], typer.Option(help="`best` makes the best student so far the job's model.")
    ] = "none",
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Stop a job."""
    with connected(url, key) as client:
        _tell_status(find_job(client, job).cancel(keep=None if keep == "none" else keep), as_json=as_json)


def pause(job: JobId, *, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Have a job give its slot back; it keeps a checkpoint."""
    with connected(url, key) as client:
        _tell_status(find_job(client, job).pause(), as_json=as_json)


def resume(job: JobId, *, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Queue a paused job again; it goes on from its checkpoint."""
    with connected(url, key) as client:
        _tell_status(find_job(client, job).resume(), as_json=as_json)


def retry(
    job: JobId, *,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key gives the same job, not another.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the new job until it ends.")] = False,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Queue a job that has ended again, as a new one. Prints the new job's id."""
    with connected(url, key) as client:
        _queued(find_job(client, job).retry(idempotency_key=idempotency_key), watch=watch, as_json=as_json)


def update(
    job: JobId, *,
    name: Annotated[str | None, typer.Option(help="Another name for people; empty for none.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label to add or to replace; repeatable.")
    ] = None,
    remove_label: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A label to take away; repeatable.")
    ] = None,
    priority: drafting.Priority = None,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Change a job's name, labels or priority."""
    change = labels(label or []) | dict.fromkeys(remove_label or [])
    if name is None and priority is None and not change:
        raise UsageError("give --name, --label, --remove-label or --priority")
    with connected(url, key) as client:
        changed = find_job(client, job).update(name=name, labels=change or None, priority=priority)
    if as_json:
        print_json(changed)
    else:
        tell(f"changed {changed.id}")


def _tell_status(after: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(after)
    else:
        tell(f"{after.id} is {coloured(str(after.status))}")


def download(
    job: JobId = "last", *, output: Output = None,
    file_format: Annotated[ModelFormat, typer.Option("--format", help="The bundle, or one file of it.")] = "zip",
    url: Url = None, key: Key = None,
) -> None:
    """Fetch a job's compressed model. The file appears only when every byte of it is there. Prints its path."""
    with connected(url, key) as client:
        answers().print(str(fetch(find_job(client, job), output, file_format)), soft_wrap=True)


def report(
    job: JobId = "last", *,
    html: Annotated[Path | None, typer.Option(help="Write the page with the curves to this file instead.")] = None,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Show what the compressed model kept of its teacher."""
    with connected(url, key) as client:
        handle = find_job(client, job)
        if html is not None:
            answers().print(str(handle.report_html(html)), soft_wrap=True)
        elif as_json:
            print_json(handle.report())
        else:
            print_report(handle)


def attempts(job: JobId = "last", *, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show who had a go at a job, how that ended and why."""
    with connected(url, key) as client:
        found = find_job(client, job).attempts()
    if as_json:
        print_json(found)
    elif found:
        answers().print(attempt_table(found))
    else:
        tell("no worker has begun this job yet")


def checkpoints(
    job: JobId = "last", *,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the last one, or that of --step. Prints its path.")
    ] = False,
    step: Annotated[int | None, typer.Option(min=0, help="With --download: the newest one of this step.")] = None,
    output: Output = None, as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """List the checkpoints of a job that has not ended, or fetch one."""
    if not download and (step is not None or output is not None):
        raise UsageError("--step and --output go with --download")
    with connected(url, key) as client:
        handle = find_job(client, job)
        found = handle.checkpoints()
        if download:
            answers().print(str(_fetch_checkpoint(handle, found, step, output)), soft_wrap=True)
        elif as_json:
            print_json(found)
        elif found:
            answers().print(checkpoint_table(found))
        else:
            tell("no checkpoint is stored of this job")


def _fetch_checkpoint(handle: JobHandle, found: Sequence[Checkpoint], step: int | None, output: Path | None) -> Path:
    chosen = next((one for one in reversed(found) if step in {None, one.step}), None)
    if chosen is None:
        at_step = "" if step is None else f" of step {step}"
        raise UsageError(f"no checkpoint{at_step} is stored of this job")
    with transfer_bar(people(), "downloaded", output.name if output else f"step {chosen.step}") as progress:
        return handle.download_checkpoint(output, checkpoint=chosen, progress=progress)


def logs(
    job: JobId = "last", *,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    as_json: Json = False, url: Url = None, key: Key = None,
) -> None:
    """Show what the trainer of each attempt printed."""
    with connected(url, key) as client:
        found = [log for log in find_job(client, job).logs() if attempt in {None, log.attempt}]
    if as_json:
        print_json(found)
        return
    for log in found:
        tell(f"attempt {log.attempt}: {log.outcome or 'not ended'}{', middle left out' * log.truncated}")
        sys.stdout.write(log.text if log.text.endswith("\n") or not log.text else f"{log.text}\n")
    if not found:
        tell("no logs yet")


def read_spec(file: Path) -> dict[str, Any]:
    """A job spec from a JSON file; the service checks what is in it."""
    try:
        spec = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {file}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    if not isinstance(spec, dict):
        raise UsageError(f"{file} holds no JSON object; a job spec is one")
    return spec


def follow_job(handle: JobHandle, farewell: str | None = None) -> Job:
    """Watch a job to its end; Ctrl-C says how to come back to it, or what `farewell` says."""
    console = people()
    console.print(f"watching {handle.id}" + ("" if farewell else " (Ctrl-C stops watching, not the job)"))
    with _farewell(handle, farewell), heeding_interrupts() as interrupts:
        follow(console, interrupts.heeded(handle.watch()))
    return handle.refresh()


def _follow_as_json(handle: JobHandle) -> Job:
    with _farewell(handle, None), heeding_interrupts() as interrupts:
        for recorded in interrupts.heeded(handle.watch()):
            sys.stdout.write(recorded.model_dump_json() + "\n")
            sys.stdout.flush()
    return handle.refresh()


@contextmanager
def _farewell(handle: JobHandle, text: str | None) -> Iterator[None]:
    """Have Ctrl-C say what becomes of the job."""
    try:
        yield
    except KeyboardInterrupt as error:
        goes_on = (
            f"Stopped watching; the job goes on. Come back: stillhouse watch {handle.id}. "
            f"Cancel it: stillhouse cancel {handle.id}"
        )
        tell(text or goes_on)
        raise typer.Exit(Exit.INTERRUPTED) from error


def end_as(job: Job) -> None:
    """Exit as the job ended; returns only if it succeeded."""
    if job.error is not None:
        tell_failure(job.error)
        tell(f"What the trainer printed: stillhouse logs {job.id}")
    code = _ENDS.get(Status(job.status), Exit.FAILED) if job.status in set(Status) else Exit.FAILED
    if code != Exit.OK:
        raise typer.Exit(code)


def fetch(handle: JobHandle, output: Path | None, file_format: ModelFormat = "zip") -> Path:
    """Download the model with a progress bar."""
    with transfer_bar(people(), "downloaded", output.name if output else f"{handle.id}.{file_format}") as progress:
        return handle.download(output, format=file_format, progress=progress)


def print_report(handle: JobHandle) -> None:
    """The comparison as a table, and what it comes to in words."""
    found = handle.report()
    console = answers()
    if found.subjects:
        console.print(report_table(found))
    console.print(escape(verdict(found)))
    console.print(escape(gain_sentence(found)))
    if found.interrupted:
        console.print(f"[yellow]{escape(interruption_sentence(found.interrupted))}[/]")


def _print_job(job: Job) -> None:
    table = plain_table("", "")
    table.show_header = False
    rows = {
        "job": job.id, "retry of": job.retry_of or "", "name": escape(job.name or ""),
        "status": coloured(str(job.status)),
        "progress": stage(job), "left": duration(job.progress.eta_seconds) if job.progress.eta_seconds else "",
        "waits because": escape(job.queue.reason) if job.queue else "",
        "recipe": escape(", ".join([job.recipe.name, *(f"but {pointer}" for pointer in job.recipe.overrides)]))
        if job.recipe else "",
        "labels": escape(", ".join(f"{key}={value}" for key, value in job.labels.items())),
        "priority": str(job.priority) if job.priority else "",
        "attempt": str(job.attempt), "workers lost": str(job.losses) if job.losses else "",
        "created": age(job.created_at), "finished": age(job.finished_at) if job.finished_at else "",
        "files": ", ".join(file.role for file in job.files), "can be": ", ".join(map(_done_to, job.allowed_actions)),
    }
    for name, value in rows.items():
        if value and value != "-":
            table.add_row(f"[dim]{name}[/]", value)
    answers().print(table)
    if job.error is not None:
        tell_failure(job.error)


def _done_to(action: str) -> str:
    return _DONE.get(str(action), str(action))
