"""A job that was read and checked, and what its spec decides about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec import Architecture, JobSpec, Training
from worker.engine.course import Learner
from worker.engine.data import Dataset
from worker.engine.softlabels import LabelMode
from worker.engine.tasks import Task
from worker.engine.teachers import Teacher


@dataclass(frozen=True)
class Prepared:
    """A job that can run."""

    dataset: Dataset
    task: Task
    num_classes: int  # width of the models' outputs
    label_names: list[str]
    student: Learner
    teacher_architecture: Architecture | None  # complete; None where the teacher is no network of ours
    teacher: Teacher | None  # None: it is to be trained first
    metric: str
    batch_size: int  # what training.batch_size comes to
    mode: LabelMode
    remarks: Sequence[Noted] = ()  # what was seen on the way

    def one_input(self) -> Tensor:
        """A normalised sample (1, *input_shape), to measure latency with."""
        return self.dataset.preprocessing.normalize(self.one_sample())

    def one_sample(self) -> Tensor:
        """A raw arranged sample (1, ...)."""
        return self.dataset.train.samples.arranged[:1]

    def notes(self) -> Iterator[Noted]:
        """What was inferred and measured."""
        preprocessing = self.dataset.preprocessing
        sizes = ", ".join(f"{len(part.ids):,} {part.name}" for part in self.dataset.parts)
        yield Noted(
            code="data_read",
            message=f"{sizes} samples of {list(self.dataset.input_shape)}, {self.num_classes} {self.task.outputs}.",
            data={
                "task": self.task.kind, "layout": preprocessing.layout,
                "normalization": preprocessing.normalization.model_dump(), "num_classes": self.num_classes,
            },
        )
        yield self.mode.note()
        yield from self.remarks


def student_metric(spec: JobSpec, task: Task) -> str:
    """What selects the student's best step."""
    chosen = spec.effective_training.selection_metric
    if chosen == "loss" and spec.effective_objective.needs_features:
        raise InvalidSpecError(
            f"a term looks at layers, which the validation split is not shown to; use {task.quality} or agreement",
            param="/training/selection_metric",
        )
    if chosen == "auto":
        return task.quality if spec.has_validation_labels or not spec.task.reads_labels else "agreement"
    needs_labels = spec.effective_objective.needs_labels if chosen == "loss" else (
        chosen != "agreement" and spec.task.reads_labels
    )
    if needs_labels and not spec.has_validation_labels:
        raise InvalidSpecError(
            f"selection_metric {chosen} needs a validation split with labels; use agreement",
            param="/training/selection_metric",
        )
    return chosen


def teacher_metric(spec: JobSpec, training: Training, task: Task) -> str | None:
    """What selects the best step of a model that learns from labels alone; None takes the last."""
    if training.selection_metric == "agreement":
        raise InvalidSpecError(
            f"a teacher in training has none to agree with; use {task.quality} or loss",
            param="/teacher/training/selection_metric",
        )
    if not spec.has_validation_labels:
        return None
    return "loss" if training.selection_metric == "loss" else task.quality


def control_metric(spec: JobSpec, task: Task) -> str:
    """What selects the control's best step: the student's, but for agreement where there are labels."""
    chosen = student_metric(spec, task)
    return task.quality if chosen == "agreement" and spec.has_validation_labels else chosen
