"""Every mistake that can be told before training."""

from collections.abc import Mapping
from pathlib import Path

import torch

from stillhouse.contract.failures import DeviceUnavailableError, InvalidSpecError
from stillhouse.contract.spec import Architecture, CheckpointTeacher, JobSpec, Training, TrainTeacher
from worker.engine.architectures import build_fitted, check_batch, check_width, fit
from worker.engine.course import Learner
from worker.engine.data import Dataset, load_dataset
from worker.engine.memory import check_training_memory
from worker.engine.prepared import Prepared, student_metric, teacher_metric
from worker.engine.softlabels import Cost, LabelMode, decide
from worker.engine.students import fit_student
from worker.engine.tasks import Task, task_of
from worker.engine.teachers import Teacher, load_teacher, trained_teacher
from worker.engine.threads import count_flops


def prepare(spec: JobSpec, inputs: Mapping[str, Path], device: str) -> Prepared:
    """Read and check everything. Raises the StillhouseError that fits a mistake."""
    check_device(device)
    task = task_of(spec.task.kind if spec.task else None)
    dataset = load_dataset(spec, inputs)
    _check_training(spec.training, dataset, "/training")
    teacher = None
    if isinstance(spec.teacher, CheckpointTeacher):
        teacher = load_teacher(spec.teacher, inputs, dataset, num_classes=spec.data.given_num_classes, device=device)
    num_classes = _num_classes(spec, task, dataset, teacher)
    teacher_architecture = teacher.architecture if teacher else _fit_teacher(spec, task, dataset, num_classes)
    check_width(teacher_architecture.num_classes, num_classes, "/teacher/architecture/num_classes")
    student = fit_student(spec, dataset, num_classes)
    task.check_labels(dataset, num_classes)
    check_training_memory(student, spec.training, param="/student")
    if isinstance(spec.teacher, TrainTeacher):
        check_training_memory(teacher_architecture, spec.teacher.training, param="/teacher/architecture")
    return Prepared(
        dataset=dataset,
        task=task,
        num_classes=num_classes,
        label_names=task.name_outputs(spec, num_classes),
        student=Learner(student),
        teacher_architecture=teacher_architecture,
        teacher=teacher,
        metric=student_metric(spec, task),
        batch_size=min(spec.training.batch_size, len(dataset.train.ids)),
        mode=_decide_mode(spec, dataset, student, teacher_architecture, num_classes),
    )


def check_device(device: str) -> None:
    """Raise DeviceUnavailableError unless the worker has it."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailableError(f"the worker has no {device}")


def untrained(prepared: Prepared, device: str) -> Teacher:
    """A teacher that has learned nothing yet, to rehearse with."""
    assert prepared.teacher_architecture is not None  # noqa: S101 - asked where it is to be trained
    model = build_fitted(prepared.teacher_architecture, device)
    return trained_teacher(model, prepared.teacher_architecture, prepared.dataset)


def _decide_mode(
    spec: JobSpec, dataset: Dataset, student: Architecture, teacher: Architecture | None, num_outputs: int
) -> LabelMode:
    return decide(spec, Cost(
        num_samples=len(dataset.train.ids),
        num_outputs=num_outputs,
        student_flops=3 * count_flops(student, 1),  # forward, and twice that to go back
        teacher_flops=count_flops(teacher, 1) if teacher else None,
    ))


def _num_classes(spec: JobSpec, task: Task, dataset: Dataset, teacher: Teacher | None) -> int:
    found = spec.data.given_num_classes or (teacher.num_outputs if teacher else None)
    if found is None and isinstance(spec.teacher, TrainTeacher):
        found = spec.teacher.architecture.num_classes
    return found or task.num_outputs(spec, dataset)


def _fit_teacher(spec: JobSpec, task: Task, dataset: Dataset, num_classes: int) -> Architecture:
    teacher = spec.teacher
    assert isinstance(teacher, TrainTeacher)  # noqa: S101 - the other kind was loaded
    teacher_metric(spec, teacher.training, task)
    _check_training(teacher.training, dataset, "/teacher/training")
    check_batch(teacher.architecture, teacher.training, len(dataset.train.ids), "/teacher/training")
    param = "/teacher/architecture"
    return fit(teacher.architecture, input_shape=dataset.input_shape, num_classes=num_classes, param=param)


def _check_training(training: Training, dataset: Dataset, param: str) -> None:
    if training.augmentation and dataset.task != "image_classification":
        raise InvalidSpecError(
            "only images can be augmented, and these inputs are a table", param=f"{param}/augmentation"
        )
