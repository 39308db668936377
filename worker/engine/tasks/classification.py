"""One class per sample."""

from collections.abc import Iterator, Sequence
from typing import Final

from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import LabelOutOfRangeError, SingleClassError
from stillhouse.contract.report import Scores
from stillhouse.contract.spec import Classification, CrossEntropy, JobSpec, Objective, TrainTeacher
from stillhouse.contract.spec.task import Quality
from stillhouse.contract.spec.term import TaskKind
from worker.engine.data import Dataset
from worker.engine.evaluate import score
from worker.engine.objectives import Views
from worker.engine.tasks.task import Answered, labels_alone, names_of

MAX_CLASSES = 1_000_000


class ClassificationTask:
    """Outputs are logits of classes; labels are numbers of classes."""

    kind: Final[TaskKind] = "classification"
    quality: Final[Quality] = Classification.quality
    outputs: Final = Classification.outputs

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """One more than the largest label of any split."""
        del spec
        labels = [
            samples.labels[ids] for samples in dataset.given().values()
            if samples.labels is not None and len(ids := samples.labelled())
        ]
        largest = max((int(of_split.max()) for of_split in labels), default=1)
        return min(max(largest + 1, 2), MAX_CLASSES)

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise LabelOutOfRangeError with the first offending sample, or SingleClassError."""
        for name, samples in dataset.given().items():
            if samples.labels is None:
                continue
            ids = samples.labelled()
            labels = samples.labels[ids]
            outside = ((labels < 0) | (labels >= num_outputs)).nonzero()
            if len(outside):
                first = int(outside[0])
                raise LabelOutOfRangeError(
                    f"label {int(labels[first])} of sample {int(ids[first])} is not the number of a class; "
                    f"{num_outputs} classes are numbered 0 to {num_outputs - 1}",
                    param=f"/data/{name}",
                )
        trained_on = dataset.train.known_labels()
        if trained_on is not None and bool((trained_on == trained_on[0]).all()):
            raise SingleClassError(
                f"all training labels are {int(trained_on[0])}, so there is nothing to learn", param="/data/train"
            )

    def name_outputs(self, dataset: Dataset, num_outputs: int) -> list[str]:
        """A name for each class: the spec's, else its number."""
        return names_of(dataset, num_outputs, self.outputs)

    def remarks(self, spec: JobSpec, dataset: Dataset, names: Sequence[str]) -> Iterator[Noted]:
        """Nothing."""
        del spec, dataset, names
        yield from ()

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """Cross-entropy, with the smoothing that the objective gives it."""
        return labels_alone(objective, CrossEntropy())

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """Cross-entropy, as the teacher's section says."""
        return Objective(terms=[CrossEntropy(label_smoothing=teacher.label_smoothing)])

    def consensus(self, teacher: Tensor, shares: Tensor | None) -> Tensor:
        """Logits (N, C); of an ensemble, those of its mean probabilities."""
        return Views(teacher, teacher, teacher_weights=shares).soft_labels

    def validate(self, answered: Answered) -> dict[str, float]:
        """Shares of answers that are right, and that are the teacher's."""
        values: dict[str, float] = {}
        if labelled := answered.labelled():
            outputs, labels = labelled
            values["accuracy"] = _share(outputs.argmax(1) == labels)
        if answered.teacher is not None:
            teacher = self.consensus(answered.teacher, answered.teacher_shares)
            values["agreement"] = _share(answered.outputs.argmax(1) == teacher.argmax(1))
        return values

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """Scores against labels and teacher, where there are any."""
        given, shares = answered.teacher, answered.teacher_shares
        return score(
            answered.outputs, labels=answered.labels, mask=answered.mask, label_names=names,
            teacher=None if given is None else self.consensus(given, shares),
        )


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
