"""The trainings of a job, made from its spec: config stops here."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from stillhouse.contract.spec import Augmentation, JobSpec, Objective, Training, TrainTeacher
from stillhouse.contract.status import Phase
from worker.engine.answers import Answers, OnlineAnswers, RepeatedAnswers, stored
from worker.engine.architectures import build_fitted
from worker.engine.course import Course, Learner, Validation
from worker.engine.data import Augmented, Augmenter, Batches, Samples, Source, measure_limits
from worker.engine.features import Tap
from worker.engine.feed import (
    Chunks,
    DrawnFeed,
    Feed,
    Look,
    ReadyFeed,
    Targets,
    fits_normalized,
    normalize_all,
    normalized_chunks,
)
from worker.engine.numerics import Numerics
from worker.engine.objectives import Loss, Shapes
from worker.engine.objectives.composite import layers
from worker.engine.prepared import Prepared, control_metric, teacher_metric
from worker.engine.ranks import ALONE, Ranks
from worker.engine.seeds import derive_seed
from worker.engine.softlabels import Labelled, Rows, Shown
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
        precision = spec.effective_training.precision
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
        self, teacher: Teacher, soft_labels: Tensors, answers: Answers | None = None, *, rehearsed: bool = False,
        objective: Objective | None = None,
    ) -> Course:
        """The student that learns from the teacher, by stored answers where there are such.

        `soft_labels` are those of the other splits. A rehearsed student needs neither. The objective is the spec's
        where none is given.
        """
        objective = objective or self._spec.effective_objective
        return self._course(
            Phase.DISTILLING, self.learner, self._spec.effective_training, objective,
            metric=self._prepared.metric, seed=self._spec.seed, teacher=teacher, soft_labels=soft_labels,
            answers=answers, num_views=self._prepared.mode.num_views, rehearsed=rehearsed,
        )

    def control(self, soft_labels: Tensors) -> Course:
        """The same student from the same first weights in the same order, on the labels alone.

        What is augmented shows a new view in every epoch, however many views the teacher labelled: nothing binds it.
        """
        task = self._prepared.task
        return self._course(
            Phase.CONTROL, self.learner, self._spec.effective_training,
            task.hard_objective(self._spec.effective_objective), metric=control_metric(self._spec, task),
            seed=self._spec.seed, soft_labels=soft_labels,
        )

    def labelled(self) -> list[Labelled]:
        """The splits that the teacher labels once: the training split only where that is needed and of use."""
        train, *others = self._dataset.parts
        exact = [Labelled(part) for part in others]
        if not (num_views := self._prepared.mode.stored_views):
            return exact
        return [Labelled(train, num_views, self._spec.effective_training.augmentation, is_exact=False), *exact]

    def shown(self, split: str, ids: Tensor, view: int) -> Shown:
        """Samples of a split as the teacher labels them: the training split as the student sees it in this view."""
        part = next(part for part in self._dataset.parts if part.name == split)
        given = part.samples.said_softly(ids, self._prepared.num_classes)
        if part is self._dataset.train:
            look = self._look(self._spec.effective_training.augmentation)
            return Shown(look(ids.to(self._device), view).images, given)
        return Shown(part.samples.arranged.index_select(0, ids).to(self._device), given)

    def stored(self, views: Sequence[Sequence[Rows]]) -> Answers:
        """Answers out of the training split's soft labels by view."""
        train = self._dataset.train
        return stored(views, train.ids, len(train.samples), self._device)

    def _course(
        self, phase: Phase, learner: Learner, training: Training, objective: Objective, *, metric: str | None,
        seed: int, teacher: Teacher | None = None, soft_labels: Tensors | None = None, answers: Answers | None = None,
        num_views: int | None = None, rehearsed: bool = False,
    ) -> Course:
        teacher = teacher if objective.needs_teacher else None
        shapes = self._shapes(objective, learner, teacher)
        torch.manual_seed(derive_seed(seed, "helpers"))
        loss = self.numerics.widen(Loss(objective, shapes).to(self._device))
        ids = self._dataset.train.ids.to(self._device)
        classes = self._dataset.train.classes if training.balanced_sampling else None
        batches = Batches(ids, batch_size=training.batch_size, seed=seed, classes=classes)
        asked = teacher is not None and self._prepared.mode.is_online
        answers = self._answers(teacher, answers, loss, self._ranks.share(batches(0)) if rehearsed else None)
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
            num_views=num_views if training.augmentation else 1,
            teacher_shares=teacher.shares if teacher else None,
        )

    def _answers(
        self, teacher: Teacher | None, answers: Answers | None, loss: Loss, rehearsed: Tensor | None
    ) -> Answers | None:
        if teacher is None:
            return None
        if self._prepared.mode.is_online:
            return OnlineAnswers(teacher, loss.teacher_layers, self._dataset.train.samples.said_softly)
        if rehearsed is not None:
            given = self._dataset.train.samples.said_softly(rehearsed, teacher.num_outputs)
            return RepeatedAnswers(teacher, self._rows(rehearsed), given)
        return answers

    def _feed(self, training: Training, answers: Answers | None) -> Feed:
        samples, preprocessing = self._samples, self._dataset.preprocessing
        targets = Targets(samples.labels, samples.mask)
        if training.augmentation is None and not samples.is_mapped and fits_normalized(samples.arranged):
            return ReadyFeed(self._inputs, targets, answers, samples.arranged)
        return DrawnFeed(self._look(training.augmentation), preprocessing, targets, answers, self._prepared.num_classes)

    def _look(self, augmentation: Augmentation | None) -> Look:
        """How a training shows samples: what the student learns from, and what its teacher labels."""
        if augmentation is None:
            return self._as_they_are
        train = self._dataset.train
        return Augmenter(augmentation, self._rows, train.ids.to(self._device), limits=self._limits)

    def _as_they_are(self, ids: Tensor, view: int) -> Augmented:
        del view
        return Augmented(self._rows(ids), None, None)

    def _rows(self, ids: Tensor) -> Tensor:
        return self._source.rows(ids)

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
    def _limits(self) -> tuple[float, float]:
        train = self._dataset.train
        return measure_limits(train.samples.arranged, train.ids, self._dataset.preprocessing.dtype)

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
    def _validation_inputs(self) -> Chunks:
        return normalized_chunks(self._dataset.validation, self._dataset.preprocessing, self._device)
