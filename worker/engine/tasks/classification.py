"""One class per sample."""

from collections.abc import Sequence
from typing import Final

from torch import Tensor

from stillhouse.contract.failures import InvalidSpecError, LabelOutOfRangeError, SingleClassError
from stillhouse.contract.report import Scores
from stillhouse.contract.spec import CrossEntropy, JobSpec, Objective, TrainTeacher
from stillhouse.contract.spec.term import TaskKind
from worker.engine.data import Dataset
from worker.engine.evaluate import score
from worker.engine.objectives import Views
from worker.engine.tasks.task import Answered

MAX_CLASSES = 1_000_000


class ClassificationTask:
    """Outputs are logits of classes; labels are numbers of classes."""

    kind: Final[TaskKind] = "classification"
    quality: Final = "accuracy"

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """One more than the largest label of any split."""
        del spec
        labels = [samples.labels for samples in dataset.given().values() if samples.labels is not None]
        largest = max((int(of_split.max()) for of_split in labels), default=1)
        return min(max(largest + 1, 2), MAX_CLASSES)

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise LabelOutOfRangeError with the first offending sample, or SingleClassError."""
        for name, samples in dataset.given().items():
            labels = samples.labels
            if labels is None:
                continue
            outside = ((labels < 0) | (labels >= num_outputs)).nonzero()
            if len(outside):
                first = int(outside[0])
                raise LabelOutOfRangeError(
                    f"label {int(labels[first])} of sample {first} is not the number of a class; "
                    f"{num_outputs} classes are numbered 0 to {num_outputs - 1}",
                    param=f"/data/{name}",
                )
        trained_on = dataset.train.labels
        if trained_on is not None and bool((trained_on == trained_on[0]).all()):
            raise SingleClassError(
                f"all training labels are {int(trained_on[0])}, so there is nothing to learn", param="/data/train"
            )

    def name_outputs(self, spec: JobSpec, num_outputs: int) -> list[str]:
        """A name for each class: the spec's, else its number."""
        if spec.data.label_names is None:
            return [str(number) for number in range(num_outputs)]
        if len(spec.data.label_names) != num_outputs:
            raise InvalidSpecError(
                f"label_names has {len(spec.data.label_names)} names for {num_outputs} classes",
                param="/data/label_names",
            )
        return list(spec.data.label_names)

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """Cross-entropy, with the smoothing that the objective gives it."""
        terms = [term for term in objective.terms if isinstance(term, CrossEntropy)] if objective else []
        smoothing = terms[0].label_smoothing if terms else 0.0
        return Objective(terms=[CrossEntropy(label_smoothing=smoothing)])

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """Cross-entropy, as the teacher's section says."""
        return Objective(terms=[CrossEntropy(label_smoothing=teacher.label_smoothing)])

    def validate(self, answered: Answered) -> dict[str, float]:
        """Shares of answers that are right, and that are the teacher's."""
        values: dict[str, float] = {}
        if labelled := answered.labelled():
            outputs, labels = labelled
            values["accuracy"] = _share(outputs.argmax(1) == labels)
        if answered.teacher is not None:
            values["agreement"] = _share(answered.outputs.argmax(1) == _soft_labels(answered).argmax(1))
        return values

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """Scores against labels and teacher, where there are any."""
        teacher = None if answered.teacher is None else _soft_labels(answered)
        return score(
            answered.outputs, labels=answered.labels, mask=answered.mask, teacher=teacher, label_names=names
        )


def _soft_labels(answered: Answered) -> Tensor:
    return Views(answered.outputs, answered.teacher, teacher_weights=answered.teacher_shares).soft_labels


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
