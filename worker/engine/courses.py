"""The trainings of a job, made from its spec: config stops here."""

from functools import cached_property

import torch
from torch import Tensor

from stillhouse.contract.spec import Augmentation, JobSpec, Objective, Training, TrainTeacher
from stillhouse.contract.status import Phase
from worker.engine.answers import Answers, OnlineAnswers, RepeatedAnswers, StoredAnswers
from worker.engine.architectures import build_fitted
from worker.engine.course import Course, Learner, Validation
from worker.engine.data import Augmented, Augmenter, Batches, Part, Samples, Source, measure_limits
from worker.engine.features import Tap
from worker.engine.feed import DrawnFeed, Feed, ReadyFeed, Targets, fits_normalized, normalize_all
from worker.engine.numerics import Numerics
from worker.engine.objectives import Loss, Shapes
from worker.engine.objectives.composite import layers
from worker.engine.prepared import Prepared, control_metric, labels_online, teacher_metric
from worker.engine.ranks import ALONE, Ranks
from worker.engine.seeds import derive_seed
from worker.engine.state import Tensors
from worker.engine.teachers import Teacher
from worker.engine.threads import count_step_flops


class Courses:
    """Teacher's, student's and control's trainings. The normalised samples are made once and shared."""

    def __init__(self, spec: JobSpec, prepared: Prepared, device: str, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._spec, self._prepared, self._device = spec, prepared, device
        self._dataset = prepared.dataset
        self.learner = prepared.student  # with other weights, once the teacher that it is made of has learned
        precision = spec.training.precision
        self.numerics = Numerics("float32" if precision == "auto" else precision, "channels_last", device)

    def teacher(self) -> Course:
        """A teacher that learns from the labels."""
        teacher = self._spec.teacher
        architecture = self._prepared.teacher_architecture
        assert isinstance(teacher, TrainTeacher)  # noqa: S101 - asked by the pipeline
        assert architecture is not None  # noqa: S101 - it is to be trained
        return self._course(
            Phase.TEACHER, Learner(architecture), teacher.training,
            self._prepared.task.teacher_objective(teacher),
            metric=teacher_metric(self._spec, teacher.training, self._prepared.task),
            seed=derive_seed(self._spec.seed, "teacher"),
        )

    def student(
        self, teacher: Teacher, soft_labels: Tensors, *, rehearsed: bool = False, objective: Objective | None = None
    ) -> Course:
        """The student that learns from the teacher, by the spec's objective where none is given.

        A rehearsed one needs no soft labels of the training split.
        """
        objective = objective or self._spec.effective_objective
        return self._course(
            Phase.DISTILLING, self.learner, self._spec.training, objective,
            metric=self._prepared.metric, seed=self._spec.seed, teacher=teacher, soft_labels=soft_labels,
            rehearsed=rehearsed,
        )

    def control(self, soft_labels: Tensors) -> Course:
        """The same student from the same first weights in the same order, on the labels alone."""
        task = self._prepared.task
        return self._course(
            Phase.CONTROL, self.learner, self._spec.training,
            task.hard_objective(self._spec.effective_objective), metric=control_metric(self._spec, task),
            seed=self._spec.seed, soft_labels=soft_labels,
        )

    def labelled_parts(self) -> list[Part]:
        """The splits that the teacher labels once: the training split only where that is needed and of use."""
        needed = self._spec.effective_objective.needs_teacher and not labels_online(self._spec)
        return self._dataset.parts if needed else self._dataset.parts[1:]

    def _course(
        self, phase: Phase, learner: Learner, training: Training, objective: Objective, *, metric: str | None,
        seed: int, teacher: Teacher | None = None, soft_labels: Tensors | None = None, rehearsed: bool = False,
    ) -> Course:
        teacher = teacher if objective.needs_teacher else None
        shapes = self._shapes(objective, learner, teacher)
        torch.manual_seed(derive_seed(seed, "helpers"))
        loss = Loss(objective, shapes).to(self._device)
        ids = self._dataset.train.ids.to(self._device)
        classes = self._dataset.train.classes if training.balanced_sampling else None
        batches = Batches(ids, batch_size=training.batch_size, seed=seed, classes=classes)
        asked = teacher is not None and labels_online(self._spec)
        answers = self._answers(
            teacher, soft_labels or {}, loss, self._ranks.share(batches(0)) if rehearsed else None
        )
        return Course(
            phase=phase,
            learner=learner,
            training=training,
            batches=batches,
            feed=self._feed(training, answers),
            loss=loss,
            validation=self._validation((soft_labels or {}).get("validation")),
            task=self._prepared.task,
            metric=metric,
            seed=seed,
            step_flops=count_step_flops(
                learner.architecture, teacher.architecture if teacher and asked else None, batches.batch_size
            ),
            numerics=self.numerics,
            ranks=self._ranks,
            expect=self._source.expect if self._samples.is_mapped else None,
            num_views=None if training.augmentation else 1,
            teacher_shares=teacher.shares if teacher else None,
        )

    def _answers(
        self, teacher: Teacher | None, soft_labels: Tensors, loss: Loss, rehearsed: Tensor | None
    ) -> Answers | None:
        if teacher is None:
            return None
        if labels_online(self._spec):
            return OnlineAnswers(teacher, loss.teacher_layers, self._dataset.train.samples.said_softly)
        if rehearsed is not None:
            given = self._dataset.train.samples.said_softly(rehearsed, teacher.num_outputs)
            return RepeatedAnswers(teacher, self._rows(rehearsed), given)
        return StoredAnswers(self._by_sample(soft_labels["train"])[None])

    def _feed(self, training: Training, answers: Answers | None) -> Feed:
        samples, preprocessing = self._samples, self._dataset.preprocessing
        targets = Targets(samples.labels, samples.mask)
        if training.augmentation is None and not samples.is_mapped and fits_normalized(samples.arranged):
            return ReadyFeed(self._inputs, targets, answers, samples.arranged)

        look = self._augmenter(training.augmentation) if training.augmentation else self._as_they_are
        return DrawnFeed(look, preprocessing, targets, answers, self._prepared.num_classes)

    def _augmenter(self, augmentation: Augmentation) -> Augmenter:
        train = self._dataset.train
        limits = measure_limits(train.samples.arranged, train.ids, self._dataset.preprocessing.dtype)
        return Augmenter(augmentation, self._rows, train.ids.to(self._device), limits=limits)

    def _as_they_are(self, ids: Tensor, view: int) -> Augmented:
        del view
        return Augmented(self._rows(ids), None, None)

    def _rows(self, ids: Tensor) -> Tensor:
        return self._source.rows(ids)

    def _by_sample(self, of_split: Tensor) -> Tensor:
        """Soft labels of the training split, one row per sample of the file, so that a sample's id finds its row."""
        rows = of_split.new_zeros(len(self._dataset.train.samples), *of_split.shape[1:])
        return rows.index_copy_(0, self._dataset.train.ids.to(rows.device), of_split)

    def _shapes(self, objective: Objective, learner: Learner, teacher: Teacher | None) -> Shapes:
        """Shapes of the layers that the objective looks at, from one pass of two samples."""
        num_samples = len(self._dataset.train.samples)
        if not objective.needs_features or teacher is None or teacher.module is None:
            return Shapes({}, {}, self._prepared.num_classes, num_samples)
        student_layers, teacher_layers = layers(objective)
        ids = self._dataset.train.ids[:2].to(self._device)
        arranged = self._rows(ids)
        model = build_fitted(learner.architecture, self._device).eval()
        taps = Tap(model, student_layers), Tap(teacher.module, teacher_layers)
        with torch.no_grad():
            model(self._dataset.preprocessing.normalize(arranged))
            teacher.answer(arranged, self._dataset.train.samples.said_softly(ids, teacher.num_outputs))
        of_student, of_teacher = (tap.shapes(len(arranged)) for tap in taps)
        taps[1].close()
        return Shapes(of_student, of_teacher, self._prepared.num_classes, num_samples, self._classes())

    def _classes(self) -> Tensor | None:
        """Class (N,) of each sample of the training split's file; -1 of one without a label, or held out."""
        train, labels = self._dataset.train, self._dataset.train.labels
        if labels is None or labels.is_floating_point():
            return None
        known = labels if train.mask is None else torch.where(train.mask, labels, -1)
        return torch.full((len(train.samples),), -1).index_copy_(0, train.ids, known)

    def _validation(self, soft_labels: Tensor | None) -> Validation:
        part = self._dataset.validation
        labels, mask = (None if each is None else each.to(self._device) for each in (part.labels, part.mask))
        return Validation(self._validation_inputs, soft_labels, labels, mask)

    @cached_property
    def _samples(self) -> Samples:
        return self._dataset.train.samples.to(self._device)

    @cached_property
    def _source(self) -> Source:
        return self._samples.source(self._device)

    @cached_property
    def _inputs(self) -> Tensor:
        return normalize_all(self._samples.arranged, self._dataset.preprocessing)

    @cached_property
    def _validation_inputs(self) -> Tensor:
        part = self._dataset.validation
        arranged = part.samples.arranged.index_select(0, part.ids).to(self._device)
        return normalize_all(arranged, self._dataset.preprocessing)
