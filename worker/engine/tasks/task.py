"""What a task decides: which labels there are, what is learned from them, and how well a model answers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import InvalidSpecError, OutputWidthMismatchError
from stillhouse.contract.report import Scores
from stillhouse.contract.spec import JobSpec, Objective, Term, TrainTeacher
from stillhouse.contract.spec.task import Quality
from stillhouse.contract.spec.term import TaskKind
from worker.engine.data import Dataset, Samples

# Beyond this, scores by class, label or target and the confusion matrix would be larger than the report may be.
MAX_DETAILED = 256
NUM_NAMED = 10  # outputs that a message lists before it says how many more there are


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
    def quality(self) -> Quality:
        """The score that selects by default, where it can be told; better when higher."""

    @property
    def outputs(self) -> str:
        """What a model's outputs stand for, in the plural."""

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """Width of a model's output, where neither spec nor teacher tells it."""

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise the StillhouseError that fits when the labels are not of this task."""

    def name_outputs(self, dataset: Dataset, num_outputs: int) -> list[str]:
        """A name for each output; empty where they have none."""

    def remarks(self, spec: JobSpec, dataset: Dataset, names: Sequence[str]) -> Iterator[Noted]:
        """What is not wrong with the labels, but worth knowing before training."""

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """What a model learns from labels alone; as in the given objective, where it has a term of labels."""

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """What a teacher that the job trains learns from labels."""

    def consensus(self, teacher: Tensor, shares: Tensor | None) -> Tensor:
        """A teacher's outputs (N, C): as they are, or what an ensemble's (N, M, C) come to."""

    def validate(self, answered: Answered) -> dict[str, float]:
        """The quality, where it can be told, and `agreement`, where there is a teacher. Better when higher."""

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """All scores of the report."""


def names_of(dataset: Dataset, num_outputs: int, outputs: str) -> list[str]:
    """A name for each output: the spec's or the data's, else its number. InvalidSpecError for too few or many."""
    names = dataset.label_names
    if names is None:
        return [str(number) for number in range(num_outputs)]
    if len(names) != num_outputs:
        raise InvalidSpecError(f"there are {len(names)} names for {num_outputs} {outputs}", param="/data/label_names")
    return list(names)


def labels_alone(objective: Objective | None, usual: Term) -> Objective:
    """The objective's first term of labels that needs no teacher, at weight 1; the usual one where it has none."""
    terms = [term for term in objective.terms if term.needs_labels and not term.needs_teacher] if objective else []
    return Objective(terms=[(terms or [usual])[0].model_copy(update={"weight": 1.0, "weight_ramp": None})])


def known_rows(samples: Samples) -> tuple[Tensor, Tensor] | None:
    """Ids (K,) and labels (K, C) of the samples that have one; None where none has."""
    ids = samples.labelled()
    return None if samples.labels is None or len(ids) == 0 else (ids, samples.labels[ids])


def check_label_width(samples: Samples, num_outputs: int, outputs: str, param: str) -> None:
    """Raise OutputWidthMismatchError unless there is a column of labels for each output."""
    if samples.labels is not None and samples.labels.shape[1] != num_outputs:
        raise OutputWidthMismatchError(
            f"the labels have {samples.labels.shape[1]} columns, and the models {num_outputs} {outputs}", param=param
        )


def constant_columns(rows: Tensor) -> list[int]:
    """Numbers of the columns of (N, C) that hold one value."""
    return [int(number) for number in (rows == rows[0]).all(dim=0).nonzero()]


def split_param(dataset: Dataset, name: str) -> str:
    """Pointer of the section of the spec that a split's samples come from."""
    return f"/data/{name if name in dataset.given() else 'train'}"


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first of many."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
