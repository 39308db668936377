"""A job spec from the command line: files are uploaded, shorthand is written out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.cli.exits import UsageError
from stillhouse.cli.output import people
from stillhouse.cli.shorthand import DataFiles, architecture, data_files, is_artifact_id, labels
from stillhouse.cli.shorthand import student as student_section
from stillhouse.cli.transfers import transfer_bar
from stillhouse.client import Client
from stillhouse.client.api import as_sent
from stillhouse.contract.spec import RecipeName
from stillhouse.contract.spec.recipe import recipe_of
from stillhouse.contract.spec.term import TaskKind, TemperatureTerm

Name = Annotated[str | None, typer.Option(help="A name for people.")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label to find the job by; repeatable.")]
Priority = Annotated[int | None, typer.Option(min=-10, max=10, help="Which of the jobs that wait goes first.")]
Student = Annotated[
    str, typer.Option(help="mlp:64, cnn:16-32, resnet:20, timm:resnet18, pruned:0.5, or JSON as in a job spec.")
]
Data = Annotated[Path, typer.Option(
    help="Folder of IDX files (or train.npz, .csv or .parquet, and test), or one file: NPZ, CSV, Parquet, or a tar or "
    "zip of images in folders by class or of a saved Hugging Face data set."
)]
TeacherArchitecture = Annotated[
    str | None, typer.Option(help="Like --student, for a checkpoint that does not tell its architecture.")
]
Task = Annotated[TaskKind | None, typer.Option(help="What the model is for; classification when left out.")]
Recipe = Annotated[RecipeName | None, typer.Option(
    help="Terms and training settings by name, as `stillhouse recipes` lists them; the task's usual one when left out."
)]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training split.")]
Temperature = Annotated[float | None, typer.Option(help="Temperature of the soft labels.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
NoControl = Annotated[
    bool, typer.Option("--no-control", help="Do not train the same student without the teacher for comparison.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or auto.")]
Devices = Annotated[int | None, typer.Option(min=1, help="How many of one worker train together; 1 when left out.")]
MaxRuntime = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="How long the job may run before it is ended as failed.")
]


@dataclass(frozen=True)
class Draft:
    """A spec in which the files are not uploaded yet."""

    teacher: str
    teacher_architecture: dict[str, Any] | None
    data: DataFiles
    rest: Mapping[str, Any]

    def uploaded(self, client: Client) -> dict[str, Any]:
        """The spec, after its files are stored."""
        teacher: dict[str, Any] = {"kind": "checkpoint", "artifact": self._teacher_id(client)}
        if self.teacher_architecture:
            teacher["architecture"] = self.teacher_architecture
        ids = {file: _stored(client, file) for file in self.data.files()}
        return {"teacher": teacher, "data": self.data.with_ids(ids), **self.rest}

    def _teacher_id(self, client: Client) -> str:
        return self.teacher if is_artifact_id(self.teacher) else _stored(client, Path(self.teacher))


def draft(
    *, teacher: str, student: str, data: Path, teacher_architecture: str | None = None, name: str | None = None,
    label: list[str] | None = None, task: TaskKind | None = None, recipe: RecipeName | None = None,
    epochs: int | None = None, temperature: float | None = None, seed: int | None = None, no_control: bool = False,
    device: str | None = None, devices: int | None = None, max_runtime: float | None = None,
    priority: int | None = None,
) -> Draft:
    """Check what can be checked before anything is sent; UsageError says what to write instead."""
    if not is_artifact_id(teacher) and not Path(teacher).is_file():
        raise UsageError(
            f"there is no teacher file {teacher}; give a .safetensors or .pt file, or the id of an uploaded one"
        )
    found = data_files(data)
    rest = {
        "name": name, "labels": labels(label or []) or None, "student": student_section(student),
        "task": {"kind": task} if task else None, "recipe": recipe,
        "training": {"epochs": epochs} if epochs else None,
        "objective": _objective(temperature, task or "classification", recipe, found),
        "seed": seed, "control": False if no_control else None, "device": device,
        "devices": devices, "max_runtime": max_runtime, "priority": priority,
    }
    return Draft(
        teacher, architecture(teacher_architecture) if teacher_architecture else None, found,
        {key: value for key, value in rest.items() if value is not None},
    )


def _objective(
    temperature: float | None, task: TaskKind, recipe: RecipeName | None, data: DataFiles
) -> dict[str, Any] | None:
    """The recipe's objective at another temperature."""
    if temperature is None:
        return None
    chosen = recipe_of(recipe or "auto", task)
    terms = chosen.objective_for(is_labelled=bool(data.section["train"].get("labels"))).terms
    if not any(isinstance(term, TemperatureTerm) for term in terms):
        raise UsageError(f"--temperature softens probabilities, and {task} has none; leave it out")
    return {"terms": [
        as_sent(term) | ({"temperature": temperature} if isinstance(term, TemperatureTerm) else {}) for term in terms
    ]}


def _stored(client: Client, file: Path) -> str:
    with transfer_bar(people(), "uploaded", file.name) as progress:
        return client.upload(file, progress=progress).id
