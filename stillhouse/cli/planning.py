"""`stillhouse plan`: what a job would do and take, before it is submitted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from stillhouse import wording
from stillhouse.cli import drafting
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.following import phase_words
from stillhouse.cli.jobs import read_spec, refuse_beside_spec
from stillhouse.cli.output import answers, people, plain_table, print_json, tell
from stillhouse.client import Client
from stillhouse.contract.plan import Plan, PlannedSplit

# Shorter phases are not worth a word.
_MENTIONED_SECONDS = 0.05


def plan(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="SPEC.json|TEACHER", help="A job spec (`-`: standard input), or with --data a "
                            "checkpoint or the id of an uploaded one.")
    ],
    *,
    student: drafting.Student = "mlp:64",
    data: Annotated[Path | None, typer.Option(help="Beside a teacher: folder of IDX or NPZ files, or a file.")] = None,
    teacher_architecture: drafting.TeacherArchitecture = None,
    name: drafting.Name = None,
    label: drafting.Label = None,
    recipe: drafting.Recipe = None,
    epochs: drafting.Epochs = None,
    temperature: drafting.Temperature = None,
    seed: drafting.Seed = None,
    no_control: drafting.NoControl = False,
    device: drafting.Device = None,
    devices: drafting.Devices = None,
    max_runtime: drafting.MaxRuntime = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Check a job and tell what it would do and take: models, memory, time. Nothing is trained."""
    draft = None
    if data is None:
        refuse_beside_spec(context)
        spec = read_spec(Path(target))
    else:
        draft = drafting.draft(
            teacher=target, student=student, data=data, teacher_architecture=teacher_architecture, name=name,
            label=label, recipe=recipe, epochs=epochs, temperature=temperature, seed=seed, no_control=no_control,
            device=device, devices=devices, max_runtime=max_runtime,
        )
    with connected(url, key) as client:
        if draft is not None:
            spec = draft.uploaded(client)
        made = _waited_for(client, spec)
    if as_json:
        print_json(made)
    else:
        print_plan(made)


def _waited_for(client: Client, spec: dict[str, object]) -> Plan:
    with people().status("checking everything"):
        return client.plan(spec)


def print_plan(made: Plan) -> None:
    """The models side by side, what else there is to know line by line, and the notes."""
    console = answers()
    console.print(_model_table(made))
    table = plain_table("", "")
    table.show_header = False
    for name, text in _facts(made):
        table.add_row(f"[dim]{name}[/]", escape(text))
    console.print(table)
    for note in made.notes:
        tell(f"[{'yellow' if note.level == 'warning' else 'dim'}]{escape(note.message)}[/]")


def _model_table(made: Plan) -> Table:
    models = {"teacher": made.teacher, "student": made.student}
    costs = {name: model for name, model in models.items() if model is not None}
    table = Table(header_style="bold")
    table.add_column("")
    for name in costs:
        table.add_column(name, justify="right")
    table.add_row("architecture", *(escape(cost.architecture) for cost in costs.values()))
    table.add_row("parameters", *(wording.count(cost.num_parameters) for cost in costs.values()))
    table.add_row("in memory", *(wording.size(cost.num_bytes) for cost in costs.values()))
    table.add_row("MACs per sample", *(wording.count(cost.macs) for cost in costs.values()))
    return table


def _facts(made: Plan) -> Iterator[tuple[str, str]]:
    data, time, memory = made.data, made.seconds, made.memory
    yield "data", f"{data.task} on {data.input_shape}, {wording.count(data.num_classes)} classes"
    for split in data.splits:
        yield split.name, _split(split)
    if made.recipe is not None:
        yield "recipe", ", ".join([made.recipe.name, *(f"but {pointer}" for pointer in made.recipe.overrides)])
    for term in made.terms:
        share = wording.percent(term.gradient_share, 0)
        yield term.name, f"{wording.decimal(term.value)} on the first batch, {share} of the gradient"
    yield "soft labels", f"{made.soft_labels.mode}. {made.soft_labels.reason}"
    yield "step", (
        f"{wording.count(made.batch_size)} samples in {wording.milliseconds(1000 * time.seconds_per_step)}, "
        f"{made.numerics.precision}, {made.numerics.memory_format}"
    )
    yield "time", f"about {wording.seconds(time.total)} on {made.environment.device}: {_phases(made)}"
    free = f"; {wording.size(memory.available)} are free" if memory.available is not None else ""
    yield "memory", f"about {wording.size(memory.total)}{free}"


def _split(split: PlannedSplit) -> str:
    text = f"{wording.count(split.num_samples)} samples, {split.origin}"
    if not split.class_counts:
        return text
    rarest = min(split.class_counts, key=lambda count: count.num_samples)
    most = max(split.class_counts, key=lambda count: count.num_samples)
    return (
        f"{text}; the rarest class is {rarest.label} ({wording.count(rarest.num_samples)}), "
        f"the most frequent {most.label} ({wording.count(most.num_samples)})"
    )


def _phases(made: Plan) -> str:
    time = made.seconds
    phases = [
        f"{phase_words(phase)} {wording.seconds(seconds)}" for phase, seconds in time.phases.items()
        if seconds >= _MENTIONED_SECONDS
    ]
    return ", ".join([*phases, f"{wording.count(time.num_steps)} steps of distilling"])
