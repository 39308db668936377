"""What a task decides: which labels there are, what is learned from them, and how well a model answers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from stillhouse.contract.report import Scores
from stillhouse.contract.spec import JobSpec, Objective, TrainTeacher
from stillhouse.contract.spec.term import TaskKind
from worker.engine.data import Dataset


class Answered(NamedTuple):
    """Outputs of a model for a split, and what they are judged by. N samples, C outputs."""

    outputs: Tensor  # (N, C)
    labels: Tensor | None = None  # (N,) int64, or (N, C) float
    mask: Tensor | None = None  # (N,) bool: which samples have a label; all of them where it is None
    teacher: Tensor | None = None  # (N, C), or (N, M, C) of an ensemble
    teacher_shares: Tensor | None = None  # (M,)

    def labelled(self) -> tuple[Tensor, Tensor] | None:
        """Outputs and labels of the samples that have one; None where none has."""
        if self.labels is None:
            return None
        if self.mask is None:
            return self.outputs, self.labels
        return (self.outputs[self.mask], self.labels[self.mask]) if bool(self.mask.any()) else None


class Task(Protocol):
    """One kind of task."""

    @property
    def kind(self) -> TaskKind:
        """Its name in a spec."""

    @property
    def quality(self) -> str:
        """The score that selects by default, where there are labels; better when higher."""

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """Width of a model's output, where neither spec nor teacher tells it."""

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise the StillhouseError that fits when the labels are not of this task."""

    def name_outputs(self, spec: JobSpec, num_outputs: int) -> list[str]:
        """A name for each output."""

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """What a model learns from labels alone; as in the given objective, where it has a term of labels."""

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """What a teacher that the job trains learns from labels."""

    def validate(self, answered: Answered) -> dict[str, float]:
        """The quality, where there are labels, and `agreement`, where there is a teacher. Better when higher."""

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """All scores of the report."""
