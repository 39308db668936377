"""Every mistake that can be told before training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import DeviceUnavailableError, InvalidSpecError
from stillhouse.contract.spec import Architecture, CheckpointTeacher, JobSpec, Training, TrainTeacher
from stillhouse.contract.spec.augmentation import check_augmentation
from stillhouse.contract.spec.objective import without_logits
from stillhouse.contract.spec.term import FeatureTerm
from worker.engine.architectures import build_fitted, check_batch, check_width, fit
from worker.engine.data import Dataset, describe_classes, load_dataset
from worker.engine.flops import count_flops
from worker.engine.memory import check_training_memory
from worker.engine.prepared import Prepared, student_metric, teacher_metric
from worker.engine.softlabels import Cost, LabelMode, decide
from worker.engine.students import begin_student, fit_student
from worker.engine.tasks import Task, task_of
from worker.engine.teachers import Loading, Teacher, load_teacher, trained_teacher
from worker.engine.teachers.checkup import check_up
from worker.engine.teachers.ensemble import Ensemble


def prepare(
    spec: JobSpec, inputs: Mapping[str, Path], device: str, *, scratch: Path | None = None, num_ranks: int = 1
) -> Prepared:
    """Read and check everything. Raises the StillhouseError that fits a mistake."""
    take_device(device)
    task = task_of(spec.task)
    dataset = load_dataset(spec, inputs, scratch)
    _check_training(spec.effective_training, dataset, "/training", num_ranks)
    teacher = None
    loading = Loading(
        inputs, dataset, spec.data.given_num_classes, device,
        is_classification=task.kind in {"classification", "multi_label"},
    )
    if not isinstance(spec.teacher, TrainTeacher):
        teacher = load_teacher(spec.teacher, loading)
        check_objective(spec, teacher)
    num_classes = _num_classes(spec, task, dataset, teacher)
    teacher_architecture = (
        teacher.architecture if teacher else _fit_teacher(spec, task, dataset, num_classes, num_ranks)
    )
    if teacher is not None:
        check_width(teacher.num_outputs, num_classes, _width_param(spec), outputs=task.outputs)
    task.check_labels(dataset, num_classes)
    if isinstance(spec.teacher, TrainTeacher) and teacher_architecture is not None:
        check_training_memory(teacher_architecture, spec.teacher.training, param="/teacher/architecture")
    model = teacher.module if teacher else _untrained_model(teacher_architecture, device)
    architecture = fit_student(spec, dataset, num_classes, model, teacher_architecture)
    check_batch(architecture, spec.effective_training, len(dataset.train.ids), "/training", num_ranks)
    check_training_memory(architecture, spec.effective_training, param="/student")
    student, told = begin_student(spec, inputs, dataset, architecture, model, teacher_architecture)
    names = task.name_outputs(dataset, num_classes)
    return Prepared(
        dataset=dataset,
        task=task,
        num_classes=num_classes,
        label_names=names,
        student=student,
        teacher_architecture=teacher_architecture,
        teacher=teacher,
        metric=student_metric(spec, task),
        batch_size=min(spec.effective_training.batch_size, len(dataset.train.ids)),
        mode=_decide_mode(
            spec, dataset, architecture, num_classes * _num_members(teacher), _flops(teacher, teacher_architecture)
        ),
        remarks=[
            *_read(loading.remarks), *_read(told), *task.remarks(spec, dataset, names),
            *_remarks(task, teacher, dataset, device, names),
        ],
    )


def _remarks(
    task: Task, teacher: Teacher | None, dataset: Dataset, device: str, names: Sequence[str]
) -> Iterator[Noted]:
    if names:
        yield from describe_classes(dataset, names)
    if teacher is not None and task.kind == "classification":
        yield from check_up(teacher, dataset.validation, dataset.preprocessing.normalization, device)


def check_device(device: str) -> None:
    """Raise DeviceUnavailableError unless the worker has it."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(f"the worker has no {device}")


def take_device(device: str) -> None:
    """Take the device as this process's own. Raise DeviceUnavailableError unless the worker has it."""
    check_device(device)
    if device.startswith("cuda"):
        # Generators, pinned memory and streams name no device, and mean the current one.
        torch.cuda.set_device(device)


def check_objective(spec: JobSpec, teacher: Teacher) -> None:
    """Raise InvalidSpecError for a term that asks more of the teacher than it gives."""
    objective = spec.effective_objective
    for place, advice in without_logits(objective, spec.task.kind) if teacher.gives == "probabilities" else ():
        raise InvalidSpecError(advice, param=f"/objective/terms/{place}")
    for place, term in enumerate(objective.terms):
        if term.weight > 0 and isinstance(term, FeatureTerm) and term.pairs and teacher.module is None:
            raise InvalidSpecError(
                f"{term.kind} looks at the teacher's layers, and a teacher of kind {spec.teacher.kind} shows none; "
                "leave it out, or give a checkpoint",
                param=f"/objective/terms/{place}",
            )


def untrained(prepared: Prepared, device: str) -> Teacher:
    """A teacher that has learned nothing yet, to rehearse with."""
    assert prepared.teacher_architecture is not None  # noqa: S101 - asked where it is to be trained
    model = build_fitted(prepared.teacher_architecture, device)
    return trained_teacher(model, prepared.teacher_architecture, prepared.dataset)


def _untrained_model(architecture: Architecture | None, device: str) -> nn.Module:
    assert architecture is not None  # noqa: S101 - asked where it is to be trained
    return build_fitted(architecture, device)


def _read(remarks: Sequence[str]) -> Iterator[Noted]:
    """What reading weights, or making a student of them, showed."""
    for remark in remarks:
        yield Noted(code="weights_read", message=remark)


def _width_param(spec: JobSpec) -> str:
    return "/teacher/architecture/num_classes" if isinstance(spec.teacher, CheckpointTeacher) else "/teacher"


def _decide_mode(
    spec: JobSpec, dataset: Dataset, student: Architecture, num_outputs: int, teacher_flops: int | None
) -> LabelMode:
    return decide(spec, Cost(
        num_samples=len(dataset.train.ids),
        num_outputs=num_outputs,
        student_flops=3 * count_flops(student),  # forward, and twice that to go back
        teacher_flops=teacher_flops,
    ))


def _flops(teacher: Teacher | None, architecture: Architecture | None) -> int | None:
    """Operations of a teacher's answer to one sample; None where nobody can count them."""
    if architecture is not None:
        return count_flops(architecture)
    if not isinstance(teacher, Ensemble):
        return None
    counts = [_flops(member, member.architecture) for member in teacher.members]
    return None if None in counts else sum(filter(None, counts))


def _num_members(teacher: Teacher | None) -> int:
    """How many answers are stored of each sample."""
    return 1 if teacher is None or teacher.shares is None else len(teacher.shares)


def _num_classes(spec: JobSpec, task: Task, dataset: Dataset, teacher: Teacher | None) -> int:
    found = spec.data.given_num_classes or (teacher.num_outputs if teacher else None)
    if found is None and isinstance(spec.teacher, TrainTeacher):
        found = spec.teacher.architecture.num_classes
    return found or task.num_outputs(spec, dataset)


def _fit_teacher(spec: JobSpec, task: Task, dataset: Dataset, num_classes: int, num_ranks: int) -> Architecture:
    teacher = spec.teacher
    assert isinstance(teacher, TrainTeacher)  # noqa: S101 - the other kind was loaded
    teacher_metric(spec, teacher.training, task)
    _check_training(teacher.training, dataset, "/teacher/training", num_ranks)
    param = "/teacher/architecture"
    fitted = fit(
        teacher.architecture, input_shape=dataset.input_shape, num_classes=num_classes, param=param,
        outputs=task.outputs,
    )
    check_batch(fitted, teacher.training, len(dataset.train.ids), "/teacher/training", num_ranks)
    return fitted


def _check_training(training: Training, dataset: Dataset, param: str, num_ranks: int) -> None:
    batch_size = min(training.batch_size, len(dataset.train.ids))
    if batch_size % num_ranks:
        raise InvalidSpecError(
            f"a batch of {batch_size} samples cannot be shared evenly among {num_ranks} devices; give a multiple of "
            f"{num_ranks}",
            param=f"{param}/batch_size",
        )
    if training.augmentation:
        check_augmentation(training.augmentation, dataset.input_shape, param=f"{param}/augmentation")
