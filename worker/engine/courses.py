"""The trainings of a job, made from its spec: config stops here."""

from functools import cached_property

from torch import Tensor

from stillhouse.contract.spec import Architecture, JobSpec, Training, TrainTeacher
from stillhouse.contract.status import Phase
from worker.engine.course import Course, Metric, Validation
from worker.engine.data import Batches, Part, Samples
from worker.engine.feed import AugmentedFeed, Feed, LazyFeed, ReadyFeed, fits_normalized, normalize_all
from worker.engine.objectives import Loss
from worker.engine.preflight import Prepared, control_loss, control_metric, labels_online, teacher_loss, teacher_metric
from worker.engine.seeds import derive_seed
from worker.engine.state import Tensors
from worker.engine.teachers import Teacher
from worker.engine.threads import count_step_flops


class Courses:
    """Teacher's, student's and control's trainings. The normalised samples are made once and shared."""

    def __init__(self, spec: JobSpec, prepared: Prepared, device: str) -> None:
        self._spec, self._prepared, self._device = spec, prepared, device
        self._dataset = prepared.dataset

    def teacher(self) -> Course:
        """A teacher that learns from the labels."""
        teacher = self._spec.teacher
        assert isinstance(teacher, TrainTeacher)  # noqa: S101 - asked by the pipeline
        return self._course(
            Phase.TEACHER, self._prepared.teacher_architecture, teacher.training, teacher_loss(teacher),
            metric=teacher_metric(self._spec, teacher.training), seed=derive_seed(self._spec.seed, "teacher"),
        )

    def student(self, teacher: Teacher, soft_labels: Tensors) -> Course:
        """The student that learns from the teacher."""
        return self._course(
            Phase.DISTILLING, self._prepared.student, self._spec.training, Loss(self._spec.effective_objective),
            metric=self._prepared.metric, seed=self._spec.seed, teacher=teacher, soft_labels=soft_labels,
        )

    def control(self, soft_labels: Tensors) -> Course:
        """The same student from the same first weights in the same order, on the labels alone."""
        return self._course(
            Phase.CONTROL, self._prepared.student, self._spec.training, control_loss(self._spec),
            metric=control_metric(self._spec), seed=self._spec.seed, soft_labels=soft_labels,
        )

    def labelled_parts(self) -> list[Part]:
        """The splits that the teacher labels once: the training split only where that is needed and of use."""
        needed = self._spec.effective_objective.needs_teacher and not labels_online(self._spec)
        return self._dataset.parts if needed else self._dataset.parts[1:]

    def _course(
        self, phase: Phase, architecture: Architecture, training: Training, loss: Loss, *,
        metric: Metric | None, seed: int, teacher: Teacher | None = None, soft_labels: Tensors | None = None,
    ) -> Course:
        teacher = teacher if loss.needs_teacher else None
        answering = teacher.architecture if teacher and training.augmentation else None
        ids = self._dataset.train.ids.to(self._device)
        classes = self._dataset.train.classes if training.balanced_sampling else None
        batches = Batches(ids, batch_size=training.batch_size, seed=seed, classes=classes)
        return Course(
            phase=phase,
            architecture=architecture,
            training=training,
            batches=batches,
            feed=self._feed(training, teacher, soft_labels or {}),
            loss=loss,
            validation=self._validation((soft_labels or {}).get("validation")),
            metric=metric,
            seed=seed,
            step_flops=count_step_flops(architecture, answering, batches.batch_size),
        )

    def _feed(self, training: Training, teacher: Teacher | None, soft_labels: Tensors) -> Feed:
        samples, preprocessing = self._samples, self._dataset.preprocessing
        if training.augmentation is not None:
            return AugmentedFeed(samples, training.augmentation, preprocessing, teacher)
        rows = self._by_sample(soft_labels["train"]) if teacher else None
        if fits_normalized(samples.arranged):
            return ReadyFeed(self._inputs, rows, samples.labels)
        return LazyFeed(samples.arranged, preprocessing, rows, samples.labels)

    def _by_sample(self, of_split: Tensor) -> Tensor:
        """Soft labels of the training split, one row per sample of the file, so that a sample's id finds its row."""
        rows = of_split.new_zeros(len(self._dataset.train.samples), of_split.shape[1])
        return rows.index_copy_(0, self._dataset.train.ids.to(rows.device), of_split)

    def _validation(self, soft_labels: Tensor | None) -> Validation:
        labels = self._dataset.validation.labels
        return Validation(
            self._validation_inputs, soft_labels, None if labels is None else labels.to(self._device)
        )

    @cached_property
    def _samples(self) -> Samples:
        return self._dataset.train.samples.to(self._device)

    @cached_property
    def _inputs(self) -> Tensor:
        return normalize_all(self._samples.arranged, self._dataset.preprocessing)

    @cached_property
    def _validation_inputs(self) -> Tensor:
        part = self._dataset.validation
        arranged = part.samples.arranged.index_select(0, part.ids).to(self._device)
        return normalize_all(arranged, self._dataset.preprocessing)
