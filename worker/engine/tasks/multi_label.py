"""Any number of labels per sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torchmetrics.functional import classification as metrics

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import LabelOutOfRangeError, SingleClassError
from stillhouse.contract.report import ClassScore, Scores
from stillhouse.contract.spec import BinaryCrossEntropy, JobSpec, MultiLabel, Objective, TrainTeacher
from stillhouse.contract.spec.task import Quality
from stillhouse.contract.spec.term import TaskKind
from stillhouse.models.answers import decide
from worker.engine.data import Dataset
from worker.engine.objectives import OBJECTIVES, Views
from worker.engine.tasks.task import (
    MAX_DETAILED,
    Answered,
    check_label_width,
    constant_columns,
    known_rows,
    labels_alone,
    listed,
    names_of,
    split_param,
)

_SHARES: Final[Mapping[str, Callable[..., Tensor]]] = {
    "precision": metrics.multilabel_precision, "recall": metrics.multilabel_recall, "f1": metrics.multilabel_f1_score,
}


class MultiLabelTask:
    """Outputs are logits of labels, each a question of its own; labels are rows of 0 and 1."""

    kind: Final[TaskKind] = "multi_label"
    quality: Final[Quality] = MultiLabel.quality
    outputs: Final = MultiLabel.outputs

    def __init__(self, section: MultiLabel) -> None:
        self._section = section

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """Columns of the training split's labels."""
        del spec
        labels = dataset.train.samples.labels
        assert labels is not None  # noqa: S101 - without labels a teacher tells the width
        return labels.shape[1]

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise what fits for labels of another width, another value than 0 and 1, or with nothing to learn."""
        for name, samples in dataset.given().items():
            check_label_width(samples, num_outputs, "labels", f"/data/{name}")
            if known := known_rows(samples):
                _check_values(*known, f"/data/{name}")
        trained_on = dataset.train.known_labels()
        if trained_on is not None and len(constant_columns(trained_on)) == num_outputs:
            raise SingleClassError(
                "every training sample has the same labels, so there is nothing to learn", param="/data/train"
            )
        selecting = dataset.validation.known_labels()
        if selecting is not None and not bool(selecting.any()):
            raise SingleClassError(
                "no sample of the validation split has any label, so there is nothing to select by; give a larger one",
                param=split_param(dataset, "validation"),
            )

    def name_outputs(self, dataset: Dataset, num_outputs: int) -> list[str]:
        """A name for each label: the spec's, else its number."""
        return names_of(dataset, num_outputs, self.outputs)

    def remarks(self, spec: JobSpec, dataset: Dataset, names: Sequence[str]) -> Iterator[Noted]:
        """Labels that all training samples have, or none."""
        del spec
        trained_on = dataset.train.known_labels()
        constant = [] if trained_on is None else [names[number] for number in constant_columns(trained_on)]
        if constant:
            yield Noted(
                level="warning", code="constant_labels",
                message="Of these labels there is nothing to learn, for all training samples have them or none has: "
                f"{listed(constant)}.",
                data={"labels": constant[:MAX_DETAILED]},
            )

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """Binary cross-entropy, with the weight of true labels that the objective gives it."""
        return labels_alone(objective, BinaryCrossEntropy())

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """Binary cross-entropy."""
        del teacher
        return self.hard_objective()

    def consensus(self, teacher: Tensor, shares: Tensor | None) -> Tensor:
        """Logits (N, C); of an ensemble, those of its mean probabilities, label by label."""
        return Views(teacher, teacher, teacher_weights=shares).label_odds_at(1.0)

    def validate(self, answered: Answered) -> dict[str, float]:
        """Mean average precision, and the share of decisions that are the teacher's."""
        values: dict[str, float] = {}
        if labelled := answered.labelled():
            mean = _mean(average_precisions(*labelled))
            assert mean is not None  # noqa: S101 - preflight refused a validation split without a label
            values["average_precision"] = mean
        if answered.teacher is not None:
            teacher = self.consensus(answered.teacher, answered.teacher_shares)
            values["agreement"] = _share(self._decide(answered.outputs) == self._decide(teacher))
        return values

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """Scores against labels and teacher, where there are any."""
        scores: dict[str, object] = {}
        if labelled := answered.labelled():
            scores |= self._against_labels(*labelled, names)
        if answered.teacher is not None:
            teacher = self.consensus(answered.teacher, answered.teacher_shares)
            scores |= self._against_teacher(answered.outputs, teacher)
        return Scores.model_validate(scores)

    def _decide(self, outputs: Tensor) -> Tensor:
        held = decide(self._section, outputs)
        assert held is not None  # noqa: S101 - labels are decided
        return held

    def _against_labels(self, outputs: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, object]:
        held, truth = self._decide(outputs), labels.bool()
        right = (held == truth).all(dim=1)
        by_label = {name: _by_label(metric, held, truth) for name, metric in _SHARES.items()}
        precisions = average_precisions(outputs, labels)
        return {
            "average_precision": _mean(precisions),
            "exact_match": _share(right),
            "num_errors": int((~right).sum()),
            "cross_entropy": float(OBJECTIVES["binary_cross_entropy"](Views(outputs.double(), labels=labels.double()))),
            "f1_micro": float(_SHARES["f1"](
                held.int(), truth.int(), num_labels=len(names), average="micro", validate_args=False
            )),
            **{f"{name}_macro": sum(values) / len(values) for name, values in by_label.items()},
            "per_class": [
                ClassScore(
                    label=name, support=int(truth[:, number].sum()), average_precision=precisions[number],
                    **{share: values[number] for share, values in by_label.items()},
                )
                for number, name in enumerate(names)
            ] if len(names) <= MAX_DETAILED else [],
        }

    def _against_teacher(self, outputs: Tensor, teacher: Tensor) -> dict[str, object]:
        bce, student, taught = OBJECTIVES["bce"], outputs.double(), teacher.double()
        crossed, own = bce(Views(student, taught), temperature=1.0), bce(Views(taught, taught), temperature=1.0)
        return {
            "agreement": _share(self._decide(outputs) == self._decide(teacher)),
            "kl_from_teacher": float(crossed - own),
        }


def average_precisions(outputs: Tensor, labels: Tensor) -> list[float | None]:
    """Of each label, by outputs and labels (N, C); None of a label that no sample has."""
    # Torchmetrics' own function for several labels warns of those that none has, and refuses one label alone.
    chances = outputs.double().sigmoid()
    return [
        float(metrics.binary_average_precision(chances[:, number], column, validate_args=False))
        if bool(column.any()) else None
        for number, column in enumerate(labels.int().unbind(dim=1))
    ]


def _check_values(ids: Tensor, labels: Tensor, param: str) -> None:
    odd = ((labels != 0) & (labels != 1)).nonzero()
    if len(odd):
        row, column = (int(place) for place in odd[0])
        raise LabelOutOfRangeError(
            f"label {float(labels[row, column]):g} of sample {int(ids[row])} in column {column} is neither 0 nor 1",
            param=param,
        )


def _by_label(metric: Callable[..., Tensor], held: Tensor, truth: Tensor) -> list[float]:
    values = metric(held.int(), truth.int(), num_labels=held.shape[1], average=None, validate_args=False)
    return [float(value) for value in torch.atleast_1d(values)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
