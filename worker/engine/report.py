"""The report, assembled from plain values."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse import __version__
from stillhouse.contract.report import (
    AppliedRecipe,
    Curve,
    Environment,
    Interruption,
    Latency,
    Report,
    Scores,
    Selection,
    SplitSize,
    Subject,
)
from stillhouse.contract.spec import MultiLabel, Task
from stillhouse.models import count_parameters, saved_bytes
from stillhouse.wording import interruption_sentence

_PACKAGES = (
    "torch", "numpy", "safetensors", "onnx", "onnxruntime", "timm", "torchvision", "transformers",
    "torch-pruning",
)


def describe_subject(
    name: str,
    model: nn.Module | None,
    *,
    architecture: str,
    scores: Scores,
    final_scores: Scores | None = None,
    validation_scores: Scores | None = None,
    latency: Latency | None = None,
    selected_step: int | None = None,
    last_step: int | None = None,
    stopped_early: bool = False,
    num_parameters: int | None = None,
    num_bytes: int | None = None,
) -> Subject:
    """One model of the comparison (`teacher`, `student`, `control`); parameters and bytes are counted of a network."""
    return Subject(
        name=name,
        architecture=architecture,
        num_parameters=num_parameters if model is None else count_parameters(model),
        num_bytes=num_bytes if model is None else saved_bytes(model),
        latency=latency,
        scores=scores,
        final_scores=final_scores,
        validation_scores=validation_scores,
        selected_step=selected_step,
        last_step=last_step,
        stopped_early=stopped_early,
    )


def build_report(
    *,
    subjects: Sequence[Subject],
    task: Task,
    evaluated_on: str,
    selection: Selection,
    splits: Sequence[SplitSize],
    label_names: Sequence[str],
    seed: int,
    curves: Sequence[Curve],
    phase_seconds: Mapping[str, float],
    num_train_samples_seen: int,
    device: str,
    inputs: str | None = None,
    num_outputs: int | None = None,
    name: str | None = None,
    recipe: AppliedRecipe | None = None,
    interrupted: Interruption | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """The report without parity, which export_bundle adds. Ratios, gain, environment and standing notes are made here.

    `subjects` include teacher and student. `curves` are named `<phase>/<metric>`: `distilling/loss`,
    `distilling/validation.accuracy`, `control/loss`.
    """
    by_name = {subject.name: subject for subject in subjects}
    teacher, student, control = by_name["teacher"], by_name["student"], by_name.get("control")
    return Report(
        name=name,
        created_at=datetime.now(UTC),
        task=task.kind,
        inputs=inputs,
        num_outputs=num_outputs,
        threshold=task.threshold if isinstance(task, MultiLabel) else None,
        evaluated_on=evaluated_on,
        subjects=list(subjects),
        **_gain(student, control, task),
        parameter_ratio=_ratio(teacher.num_parameters, student.num_parameters),
        size_ratio=_ratio(teacher.num_bytes, student.num_bytes),
        speed_ratio=_speed_ratio(teacher, student),
        selection=selection,
        splits=list(splits),
        label_names=list(label_names),
        seed=seed,
        recipe=recipe,
        parity=[],
        curves=list(curves),
        phase_seconds=dict(phase_seconds),
        num_train_samples_seen=num_train_samples_seen,
        environment=environment(device),
        interrupted=interrupted,
        notes=[
            *([interruption_sentence(interrupted)] if interrupted else []), *notes,
            *_standing_notes(student, control, evaluated_on, selection, task),
        ],
    )


def environment(device: str) -> Environment:
    """What the bits depend on, of this process."""
    return Environment(
        device=device, threads=torch.get_num_threads(), machine=_machine(),
        # Our own is not asked of the installer: it may be read from a folder that trainers do not see.
        versions={"python": platform.python_version(), "stillhouse": __version__, **dict(_versions())},
    )


def _ratio(teacher: int | None, student: int | None) -> float | None:
    return None if teacher is None or not student else teacher / student


def _gain(student: Subject, control: Subject | None, task: Task) -> dict[str, Any]:
    """The fields of the report that tell what distillation gained; none where nobody can tell."""
    own = getattr(student.scores, task.quality)
    alone = getattr(control.scores, task.quality) if control else None
    if own is None or alone is None:
        return {}
    if task.quality == "r2":
        return {"gain": own - alone, "gain_metric": task.quality, "gain_unit": "R²"}
    return {"gain": 100 * (own - alone), "gain_metric": task.quality, "gain_unit": "percentage points"}


def _speed_ratio(teacher: Subject, student: Subject) -> float | None:
    if teacher.latency is None or student.latency is None or student.latency.p50_ms == 0:
        return None
    return teacher.latency.p50_ms / student.latency.p50_ms


def _standing_notes(
    student: Subject, control: Subject | None, evaluated_on: str, selection: Selection, task: Task
) -> Iterator[str]:
    """What every reader should know, whatever the job."""
    if evaluated_on == selection.split:
        yield (
            f"The scores are on the {evaluated_on} split, which also selected the step: they flatter the student. "
            "Give a test split to learn how it does on samples that no decision saw."
        )
    if control is not None:
        yield "The gain is of one seed; repeat the job with other seeds before quoting it."
    if not task.reads_labels:
        yield (
            "An embedding has no labels, so there is no student without a teacher to compare with, and the scores tell "
            "how near the student is to its teacher, not how useful its vectors are."
        )
    elif getattr(student.scores, task.quality) is None:
        yield (
            "The samples have no labels to score by: agreement tells how alike the models answer, not how often they "
            "are right."
        )
    if student.latency is not None:
        yield (
            "Latency is of PyTorch without compilation, one sample at a time; the models took turns, so that "
            "ratios hold better than the times themselves."
        )


def _machine() -> str:
    """Processor, cores that this process may use, operating system."""
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown processor")


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:  # the server may run from a checkout that is not installed
            continue
