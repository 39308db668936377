"""The MNIST table of Hinton, Vinyals and Dean (2015) through the engine: `python -m benchmarks.hinton`.

Errors among the 10,000 test images of the weights after the last epoch, three seeds, each with a teacher of its own.
All 60,000 training images are learned from. `--choose` is how the recipe was chosen before: on one seed, 50,000 images
to learn from and the last 10,000 to compare by, without the test images.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from benchmarks.idx import Digits, read_digits, write_digits
from benchmarks.kept import WORK, Kept, Result, artifact_id, by_artifact
from benchmarks.mnist import EXAMPLE
from benchmarks.results import publish
from stillhouse.contract.spec import (
    AdamW,
    Affine,
    Augmentation,
    AutoSoftLabels,
    CheckpointTeacher,
    CrossEntropy,
    IdxData,
    IdxSplit,
    JobSpec,
    Kl,
    Mlp,
    Objective,
    OneCycle,
    Training,
    TrainTeacher,
    ViewedSoftLabels,
)
from stillhouse.contract.status import Phase
from stillhouse.models import save_checkpoint
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.pipeline import Job
from worker.engine.softlabels import LabelFolder

SEEDS: Final = range(3)
PAPER: Final = {"teacher": 67, "alone": 146, "clean": 74, "omitted_class": 109}
OMITTED: Final = 3
STUDENT: Final = Mlp(hidden=[800, 800])
NUM_HELD_OUT = 10_000
# Evaluated once, after the last epoch; so this split decides nothing, and may overlap what is learned from.
NUM_GLANCED_AT = 1_000


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; of a student also how it is taught."""

    training: Training
    temperature: float = 20.0
    views: int | None = None
    dropout: float = 0.0

    @property
    def sections(self) -> dict[str, Any]:
        """The sections of a student's job spec."""
        return {
            "objective": Objective(terms=[Kl(temperature=self.temperature)]),
            "training": self.training,
            "soft_labels": ViewedSoftLabels(views=self.views) if self.views else AutoSoftLabels(),
        }


def training(epochs: int, **others: Any) -> Training:  # noqa: ANN401 - fields of Training
    """In half precision, evaluated at the very end only."""
    return Training(
        epochs=epochs, evaluate_every=epochs, precision="bfloat16", schedule=OneCycle(), checkpoint_seconds=86_400,
        **others,
    )


def augmented(recipe: Recipe) -> Recipe:
    """The recipe with jitter."""
    changed = recipe.training.model_copy(update={"augmentation": Augmentation(transforms=[JITTER])})
    return replace(recipe, training=changed)


JITTER: Final = Affine(degrees=10.0, translation=2 / 28, min_scale=0.9, max_scale=1.1, shear=5.0)
_STUDENT = Recipe(training(40, batch_size=256, optimizer=AdamW(learning_rate=2e-3)))
TEACHER: Final = augmented(
    Recipe(training(55, batch_size=512, optimizer=AdamW(learning_rate=2e-3, weight_decay=0.05)), dropout=0.15)
)
STUDENTS: Final = {"clean": _STUDENT, "views": augmented(replace(_STUDENT, temperature=4.0, views=8))}
CHOSEN: Final = "views"  # as `--choose` found: results/hinton_choice.json


class Splits:
    """The data of a job: the section of its spec, and the files by artifact, named by content."""

    def __init__(self, folder: Path, train: Digits, evaluated: Digits, glanced_at: Digits | None = None) -> None:
        """What is evaluated is the test split, or validation where nothing is glanced at instead."""
        self.train, self.evaluated = train, evaluated
        self.files: dict[str, Path] = {}
        parts = {"train": train, "validation": glanced_at or evaluated, **({"test": evaluated} if glanced_at else {})}
        written = {name: self._split(folder, name, digits) for name, digits in parts.items()}
        self.section = IdxData.model_validate({"num_classes": 10, **written})

    def _split(self, folder: Path, name: str, digits: Digits) -> IdxSplit:
        files = write_digits(folder, f"{name}-{len(digits)}", digits)
        self.files |= by_artifact(*files.values())
        return IdxSplit(inputs=artifact_id(files["images"]), labels=artifact_id(files["labels"]))


class Trainer:
    """Trains on splits, or takes what it trained before."""

    def __init__(self, kept: Kept, splits: Splits) -> None:
        self._kept, self._splits = kept, splits

    def teacher(self, recipe: Recipe, seed: int) -> tuple[Result, Path]:
        """Errors and seconds of a teacher, and the file of its weights after the last epoch."""
        spec = JobSpec(
            teacher=TrainTeacher(
                architecture=Mlp(hidden=[1200, 1200], dropout=recipe.dropout), training=recipe.training
            ),
            # Never trained here.
            student=Mlp(hidden=[8]), objective=Objective(terms=[CrossEntropy()]), training=training(1), control=False,
            data=self._splits.section, seed=seed,
        )
        result = self._kept.result(spec, lambda stem: self._train_teacher(spec, stem.with_suffix(".safetensors")))
        return result, self._kept.file(spec, ".safetensors")

    def student(self, recipe: Recipe, seed: int, teacher: Path, *, with_control: bool = False) -> Result:
        """Errors and seconds of a taught student, and errors of the same student alone where asked.

        `biased` are the errors with the bias of the omitted class set on all training images.
        """
        spec = JobSpec(
            teacher=CheckpointTeacher(artifact=artifact_id(teacher)),
            student=STUDENT,
            control=with_control, data=self._splits.section, seed=seed, **recipe.sections,
        )
        return self._kept.result(spec, lambda _: self._train_student(spec, teacher))

    def _job(self, spec: JobSpec, scratch: str, **files: Path) -> Job:
        inputs = {**self._splits.files, **by_artifact(*files.values())}
        store = LabelFolder(self._kept.folder / "soft_labels", inputs)
        return Job(spec, inputs, Path(scratch), device="cpu", requested=lambda: None, store=store)

    def _train_teacher(self, spec: JobSpec, weights: Path) -> Result:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            job = self._job(spec, scratch)
            for _ in job.train(None):
                if (state := job.keeper.trainings.get(Phase.TEACHER)) is not None and state.ended:
                    break
            teacher = job.trained_teacher()  # of the last step, the only one that was evaluated
        save_checkpoint(weights, teacher.module, teacher.architecture, teacher.preprocessing.normalization)
        found = logits(teacher.module, teacher.preprocessing, self._splits.evaluated)
        return {"errors": num_errors(found, self._splits.evaluated), "seconds": time.monotonic() - began}

    def _train_student(self, spec: JobSpec, teacher: Path) -> Result:
        with tempfile.TemporaryDirectory() as scratch:
            job = self._job(spec, scratch, teacher=teacher)
            for _ in job.train(None):
                pass
        read = job.prepared.dataset.preprocessing
        trained = job.keeper.trainings[Phase.DISTILLING].evaluated_model
        found = logits(trained, read, self._splits.evaluated)
        result: Result = {
            "errors": num_errors(found, self._splits.evaluated), "seconds": job.journey.seconds()[Phase.DISTILLING],
        }
        if spec.trains_control:
            alone = job.keeper.trainings[Phase.CONTROL].evaluated_model
            result["alone"] = num_errors(logits(alone, read, self._splits.evaluated), self._splits.evaluated)
        if not (self._splits.train.labels == OMITTED).any():
            everything = read_digits(EXAMPLE, "train")
            bias = best_bias(logits(trained, read, everything), everything)
            biased = found + bias * one_hot(torch.tensor(OMITTED), 10)
            result |= {"bias": bias, "biased": num_errors(biased, self._splits.evaluated)}
        return result


def logits(model: nn.Module, preprocessing: Preprocessing, digits: Digits) -> Tensor:
    """Logits (N, 10), computed in float32."""
    images = torch.from_numpy(digits.images.copy())
    with torch.no_grad():
        return torch.cat([model.eval()(part) for part in preprocessing(images).split(1000)])


def num_errors(logits: Tensor, digits: Digits) -> int:
    """How many images get the wrong class."""
    return int((logits.argmax(1).numpy() != digits.labels).sum())


def best_bias(logits: Tensor, digits: Digits) -> float:
    """What to add to the omitted class's logit for the fewest errors: the middle of the best values on a grid."""
    step = one_hot(torch.tensor(OMITTED), 10)
    biases = [number / 20 for number in range(-100, 401)]
    errors = [num_errors(logits + bias * step, digits) for bias in biases]
    return median(bias for bias, number in zip(biases, errors, strict=True) if number == min(errors))


def choose(kept: Kept, folder: Path) -> None:
    """Compare the candidates on held-out training images, with one seed."""
    everything = read_digits(EXAMPLE, "train")
    trainer = Trainer(kept, Splits(folder, everything[:-NUM_HELD_OUT], everything[-NUM_HELD_OUT:]))
    taught, teacher = trainer.teacher(TEACHER, 0)
    students = {name: trainer.student(recipe, 0, teacher) for name, recipe in STUDENTS.items()}
    publish("hinton_choice", {
        "what": "errors among 10,000 training images that were held out; learned from the other 50,000; seed 0",
        "teacher": taught,
        "students": students,
        "recipes": {"teacher": _of_teacher(TEACHER), **{name: _of_student(taken) for name, taken in STUDENTS.items()}},
    })


def measure(kept: Kept, folder: Path) -> None:
    """The table, seed by seed; published after each of them."""
    everything, test = read_digits(EXAMPLE, "train"), read_digits(EXAMPLE, "t10k")
    glanced_at = everything[-NUM_GLANCED_AT:]
    whole = Trainer(kept, Splits(folder, everything, test, glanced_at))
    lacking = Trainer(kept, Splits(folder, everything[everything.labels != OMITTED], test, glanced_at))
    rows: list[dict[str, float]] = []
    for seed in SEEDS:
        taught, teacher = whole.teacher(TEACHER, seed)
        clean = whole.student(STUDENTS["clean"], seed, teacher, with_control=True)
        views = whole.student(STUDENTS["views"], seed, teacher)
        omitted = lacking.student(STUDENTS["clean"], seed, teacher)
        rows.append({
            "teacher_errors": taught["errors"],
            "student_alone": clean["alone"],
            "student_distilled": {"clean": clean, "views": views}[CHOSEN]["errors"],
            "student_distilled_clean": clean["errors"],
            "student_distilled_views": views["errors"],
            "omitted_class": omitted["biased"],
            "omitted_class_before_bias": omitted["errors"],
            "omitted_class_bias": omitted["bias"],
            "teacher_seconds": taught["seconds"],
            "student_seconds": clean["seconds"],
        })
        publish("hinton", _figures(rows))


def _figures(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    by_name = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "what": "MNIST, errors among the 10,000 test images of the weights after the last epoch, by seed; teacher "
        "784-1200-1200-10, student 784-800-800-10, all 60,000 training images; student_distilled is the kind that "
        f"validation chose, {CHOSEN}",
        "seeds": list(SEEDS)[: len(rows)],
        "is_complete": len(rows) == len(SEEDS),
        **by_name,
        "means": {name: mean(values) for name, values in by_name.items()},
        "paper": PAPER,
        "threads": torch.get_num_threads(),
        "recipes": {
            "teacher": _of_teacher(TEACHER), **{name: _of_student(taken) for name, taken in STUDENTS.items()},
        },
    }


def _of_teacher(recipe: Recipe) -> dict[str, Any]:
    return {"dropout": recipe.dropout, "training": recipe.training.model_dump(mode="json", exclude_none=True)}


def _of_student(recipe: Recipe) -> dict[str, Any]:
    return {name: section.model_dump(mode="json", exclude_none=True) for name, section in recipe.sections.items()}


def main() -> None:
    """Choose or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="compare the candidates on held-out training images")
    todo = choose if parser.parse_args().choose else measure
    kept = Kept(WORK / "hinton")
    with tempfile.TemporaryDirectory() as folder:
        todo(kept, Path(folder))


if __name__ == "__main__":
    main()
