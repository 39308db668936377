"""Every mistake that can be told before training, and what the phases will take."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import DeviceUnavailableError, DivergedError, InvalidSpecError
from stillhouse.contract.spec import (
    Architecture,
    CheckpointTeacher,
    CrossEntropy,
    JobSpec,
    Objective,
    Training,
    TrainTeacher,
)
from stillhouse.contract.status import Phase
from worker.engine.architectures import build_fitted, check_batch, check_width, fit
from worker.engine.course import Metric
from worker.engine.data import Batches, Dataset, load_dataset
from worker.engine.feed import Batch
from worker.engine.memory import check_training_memory
from worker.engine.objectives import Loss, Views
from worker.engine.softlabels import CHUNK, num_chunks
from worker.engine.students import fit_student
from worker.engine.tasks import check_labels, given_num_classes, infer_num_classes, name_labels
from worker.engine.teachers import Teacher, answer, load_teacher

# Rough, and the same on every machine's scale: evaluation, and export with its proof in a fresh process.
EVALUATING_SECONDS = 1.0
EXPORTING_SECONDS = 6.0


@dataclass(frozen=True)
class Prepared:
    """A job that can run."""

    dataset: Dataset
    num_classes: int
    label_names: list[str]
    student: Architecture  # complete
    teacher_architecture: Architecture  # complete
    teacher: Teacher | None  # None: it is to be trained first
    metric: Metric
    batch_size: int  # what training.batch_size comes to
    expected: dict[Phase, float]  # seconds

    def one_input(self) -> Tensor:
        """A normalised sample (1, *input_shape), to measure latency with."""
        first = self.dataset.train.samples.arranged[:1]
        return self.dataset.preprocessing.normalize(first)

    def notes(self) -> Iterator[Noted]:
        """What was inferred and measured."""
        preprocessing = self.dataset.preprocessing
        sizes = ", ".join(f"{len(part.ids):,} {part.name}" for part in self.dataset.parts)
        yield Noted(
            code="data_read",
            message=f"{sizes} samples of {list(self.dataset.input_shape)}, {self.num_classes} classes.",
            data={
                "task": self.dataset.task, "layout": preprocessing.layout,
                "normalization": preprocessing.normalization.model_dump(), "num_classes": self.num_classes,
            },
        )


def prepare(spec: JobSpec, inputs: Mapping[str, Path], device: str) -> Prepared:
    """Read and check everything, and run one batch through it. Raises the StillhouseError that fits a mistake."""
    check_device(device)
    dataset = load_dataset(spec, inputs)
    _check_training(spec.training, dataset, "/training")
    teacher = None
    if isinstance(spec.teacher, CheckpointTeacher):
        teacher = load_teacher(spec.teacher, inputs, dataset, num_classes=given_num_classes(spec), device=device)
    num_classes = _num_classes(spec, dataset, teacher)
    teacher_architecture = teacher.architecture if teacher else _fit_teacher(spec, dataset, num_classes)
    check_width(teacher_architecture.num_classes, num_classes, "/teacher/architecture/num_classes")
    check_labels(dataset, num_classes)
    if isinstance(spec.teacher, TrainTeacher):
        check_training_memory(teacher_architecture, spec.teacher.training, param="/teacher/architecture")
    rehearsed = teacher or untrained(teacher_architecture, dataset, device)
    student = fit_student(spec, dataset, num_classes, rehearsed.model, teacher_architecture).architecture
    check_training_memory(student, spec.training, param="/student")
    return Prepared(
        dataset=dataset,
        num_classes=num_classes,
        label_names=name_labels(spec, num_classes),
        student=student,
        teacher_architecture=teacher_architecture,
        teacher=teacher,
        metric=student_metric(spec),
        batch_size=min(spec.training.batch_size, len(dataset.train.ids)),
        expected=_rehearse(spec, dataset, student, rehearsed, device),
    )


def check_device(device: str) -> None:
    """Raise DeviceUnavailableError unless the worker has it."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailableError(f"the worker has no {device}")


def untrained(architecture: Architecture, dataset: Dataset, device: str) -> Teacher:
    """A teacher that has learned nothing yet."""
    model = build_fitted(architecture, device).eval().requires_grad_(requires_grad=False)
    return Teacher(model, architecture, dataset.preprocessing)


def student_metric(spec: JobSpec) -> Metric:
    """What selects the student's best step."""
    chosen = spec.training.selection_metric
    if chosen == "auto":
        return "accuracy" if spec.has_validation_labels else "agreement"
    if chosen != "agreement" and not spec.has_validation_labels and (
        chosen == "accuracy" or spec.effective_objective.needs_labels
    ):
        raise InvalidSpecError(
            f"selection_metric {chosen} needs a validation split with labels; use agreement",
            param="/training/selection_metric",
        )
    return chosen


def teacher_metric(spec: JobSpec, training: Training) -> Metric | None:
    """What selects the best step of a model that learns from labels alone; None takes the last."""
    if training.selection_metric == "agreement":
        raise InvalidSpecError(
            "a teacher in training has none to agree with; use accuracy or loss",
            param="/teacher/training/selection_metric",
        )
    if not spec.has_validation_labels:
        return None
    return "loss" if training.selection_metric == "loss" else "accuracy"


def control_metric(spec: JobSpec) -> Metric:
    """What selects the control's best step: the student's, but for agreement where there are labels."""
    chosen = student_metric(spec)
    return "accuracy" if chosen == "agreement" and spec.has_validation_labels else chosen


def teacher_loss(spec: TrainTeacher) -> Loss:
    """Cross-entropy, as the teacher's section says."""
    return Loss(Objective(terms=[CrossEntropy(label_smoothing=spec.label_smoothing)]))


def control_loss(spec: JobSpec) -> Loss:
    """The student's own cross-entropy, alone."""
    terms = [term for term in spec.effective_objective.terms if isinstance(term, CrossEntropy)]
    smoothing = terms[0].label_smoothing if terms else 0.0
    return Loss(Objective(terms=[CrossEntropy(label_smoothing=smoothing)]))


def labels_online(spec: JobSpec) -> bool:
    """Whether the teacher labels each batch as it comes."""
    return spec.training.augmentation is not None and spec.effective_objective.needs_teacher


def _num_classes(spec: JobSpec, dataset: Dataset, teacher: Teacher | None) -> int:
    found = given_num_classes(spec) or (teacher.architecture.num_classes if teacher else None)
    if found is None and isinstance(spec.teacher, TrainTeacher):
        found = spec.teacher.architecture.num_classes
    return found or infer_num_classes(dataset)


def _fit_teacher(spec: JobSpec, dataset: Dataset, num_classes: int) -> Architecture:
    teacher = spec.teacher
    assert isinstance(teacher, TrainTeacher)  # noqa: S101 - the other kind was loaded
    teacher_metric(spec, teacher.training)
    _check_training(teacher.training, dataset, "/teacher/training")
    param = "/teacher/architecture"
    fitted = fit(teacher.architecture, input_shape=dataset.input_shape, num_classes=num_classes, param=param)
    check_batch(fitted, teacher.training, len(dataset.train.ids), "/teacher/training")
    return fitted


def _check_training(training: Training, dataset: Dataset, param: str) -> None:
    if training.augmentation and dataset.task != "image_classification":
        raise InvalidSpecError(
            "only images can be augmented, and these inputs are a table", param=f"{param}/augmentation"
        )


def _rehearse(
    spec: JobSpec, dataset: Dataset, student: Architecture, teacher: Teacher, device: str
) -> dict[Phase, float]:
    """Run one batch through teacher, student, every term and backward; tell what each phase should take, in seconds."""
    batches = Batches(dataset.train.ids, batch_size=spec.training.batch_size, seed=spec.seed)
    steps = spec.training.epochs * batches.steps_per_epoch
    label_seconds, logits = _time_labels(dataset, teacher, batches(0), device)
    batch = _batch(dataset, batches(0), logits, device)
    step_seconds = _time_step(student, Loss(spec.effective_objective), batch, device)
    online = steps * label_seconds if labels_online(spec) else 0.0
    labelled = dataset.parts[1:] if labels_online(spec) else dataset.parts
    expected = {
        Phase.SOFT_LABELS: num_chunks(labelled) * label_seconds * CHUNK / len(batches(0)),
        Phase.DISTILLING: steps * step_seconds + online,
        Phase.CONTROL: steps * step_seconds if spec.trains_control else 0.0,
        Phase.EVALUATING: EVALUATING_SECONDS,
        Phase.EXPORTING: EXPORTING_SECONDS,
    }
    if isinstance(spec.teacher, TrainTeacher):
        expected[Phase.TEACHER] = _expect_teacher(spec.teacher, dataset, teacher, device)
    return expected


def _expect_teacher(spec: TrainTeacher, dataset: Dataset, teacher: Teacher, device: str) -> float:
    batches = Batches(dataset.train.ids, batch_size=spec.training.batch_size, seed=0)
    batch = _batch(dataset, batches(0), None, device)
    steps = spec.training.epochs * batches.steps_per_epoch
    return steps * _time_step(teacher.architecture, teacher_loss(spec), batch, device)


def _time_labels(
    dataset: Dataset, teacher: Teacher, ids: Tensor, device: str
) -> tuple[float, Tensor]:
    arranged = dataset.train.samples.arranged.index_select(0, ids).to(device)
    answer(teacher, arranged)  # the first pass allocates and chooses kernels
    began = time.perf_counter()
    logits = answer(teacher, arranged)
    return time.perf_counter() - began, logits


def _batch(dataset: Dataset, ids: Tensor, logits: Tensor | None, device: str) -> Batch:
    samples = dataset.train.samples
    inputs = dataset.preprocessing.normalize(samples.arranged.index_select(0, ids).to(device))
    return Batch(inputs, logits, None if samples.labels is None else samples.labels[ids].to(device))


def _time_step(architecture: Architecture, loss: Loss, batch: Batch, device: str) -> float:
    """Seconds of the second of two steps of a model that is thrown away. Raises DivergedError for a loss like NaN."""
    model = build_fitted(architecture, device).train()
    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        total = loss(Views(model(batch.inputs), batch.teacher, batch.labels))[0]
        total.backward()
    if not bool(total.isfinite()):
        raise DivergedError("the very first loss is not finite: the inputs or the soft labels are too large", step=0)
    return time.perf_counter() - began
