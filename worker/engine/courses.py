"""The trainings of a job, made from its spec: config stops here."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from stillhouse.contract.spec import JobSpec, Objective, Training, TrainTeacher
from stillhouse.contract.status import Phase
from worker.engine.answers import Answers, OnlineAnswers, RepeatedAnswers, stored
from worker.engine.architectures import build_fitted
from worker.engine.course import Course, Learner, Validation
from worker.engine.data import Batches, Samples, augment
from worker.engine.features import Tap
from worker.engine.feed import DrawnFeed, Feed, ReadyFeed, Targets, fits_normalized, normalize_all
from worker.engine.objectives import Loss, Shapes
from worker.engine.objectives.composite import layers
from worker.engine.precision import Precision
from worker.engine.prepared import Prepared, control_metric, teacher_metric
from worker.engine.seeds import derive_seed
from worker.engine.softlabels import Labelled, Rows
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
        self, teacher: Teacher, soft_labels: Tensors, answers: Answers | None = None, *, rehearsed: bool = False
    ) -> Course:
        """The student that learns from the teacher, by stored answers where there are such.

        `soft_labels` are those of the other splits. A rehearsed student needs neither.
        """
        return self._course(
            Phase.DISTILLING, self._prepared.student, self._spec.training, self._spec.effective_objective,
            metric=self._prepared.metric, seed=self._spec.seed, teacher=teacher, soft_labels=soft_labels,
            answers=answers, num_views=self._prepared.mode.num_views, rehearsed=rehearsed,
        )

    def control(self, soft_labels: Tensors) -> Course:
        """The same student from the same first weights in the same order, on the labels alone.

        What is augmented shows a new view in every epoch, however many views the teacher labelled: nothing binds it.
        """
        task = self._prepared.task
        return self._course(
            Phase.CONTROL, self._prepared.student, self._spec.training,
            task.hard_objective(self._spec.effective_objective), metric=control_metric(self._spec, task),
            seed=self._spec.seed, soft_labels=soft_labels,
        )

    def labelled(self) -> list[Labelled]:
        """The splits that the teacher labels once: the training split only where that is needed and of use."""
        train, *others = self._dataset.parts
        exact = [Labelled(part) for part in others]
        if not (num_views := self._prepared.mode.stored_views):
            return exact
        return [Labelled(train, num_views, self._spec.training.augmentation, is_exact=False), *exact]

    def images(self, split: str, ids: Tensor, view: int) -> Tensor:
        """Raw arranged samples of a split on the device, as the student sees the training split in this view."""
        if split == self._dataset.train.name:
            return self._shown(self._spec.training, ids.to(self._device), view)
        part = next(part for part in self._dataset.parts if part.name == split)
        return part.samples.arranged.index_select(0, ids).to(self._device)

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
        loss = Loss(objective, shapes).to(self._device)
        batches = Batches(self._dataset.train.ids.to(self._device), batch_size=training.batch_size, seed=seed)
        asked = teacher is not None and self._prepared.mode.is_online
        answers = self._answers(teacher, answers, loss, batches(0) if rehearsed else None)
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
            precision=Precision(self._prepared.precision, self._device),
            num_views=num_views if training.augmentation else 1,
            teacher_shares=teacher.shares if teacher else None,
        )

    def _answers(
        self, teacher: Teacher | None, answers: Answers | None, loss: Loss, rehearsed: Tensor | None
    ) -> Answers | None:
        if teacher is None:
            return None
        if self._prepared.mode.is_online:
            return OnlineAnswers(teacher, loss.teacher_layers)
        if rehearsed is not None:
            return RepeatedAnswers(teacher, self._samples.arranged.index_select(0, rehearsed), rehearsed)
        return answers

    def _feed(self, training: Training, answers: Answers | None) -> Feed:
        samples, preprocessing = self._samples, self._dataset.preprocessing
        targets = Targets(samples.labels)
        if training.augmentation is None and fits_normalized(samples.arranged):
            return ReadyFeed(self._inputs, targets, answers, samples.arranged)
        return DrawnFeed(partial(self._shown, training), preprocessing, targets, answers)

    def _shown(self, training: Training, ids: Tensor, view: int) -> Tensor:
        """Raw arranged samples as a training shows them: what the student learns from, and what its teacher labels."""
        arranged = self._samples.arranged.index_select(0, ids)
        return augment(arranged, ids, training.augmentation, epoch=view) if training.augmentation else arranged

    def _shapes(self, objective: Objective, learner: Learner, teacher: Teacher | None) -> Shapes:
        """Shapes of the layers that the objective looks at, from one pass of two samples."""
        num_samples = len(self._dataset.train.samples)
        if not objective.needs_features or teacher is None or teacher.module is None:
            return Shapes({}, {}, self._prepared.num_classes, num_samples)
        student_layers, teacher_layers = layers(objective)
        ids = self._dataset.train.ids[:2].to(self._device)
        arranged = self._samples.arranged.index_select(0, ids)
        model = build_fitted(learner.architecture, self._device).eval()
        tap = Tap(model, student_layers)
        with torch.no_grad():
            model(self._dataset.preprocessing.normalize(arranged))
        answer = OnlineAnswers(teacher, teacher_layers)(ids, 0, lambda: arranged)
        return Shapes(_shapes(tap.take()), _shapes(answer.features), self._prepared.num_classes, num_samples)

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


def _shapes(features: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(feature.shape[1:]) for path, feature in features.items()}
