"""Numbers per sample."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from stillhouse.contract.events import Noted
from stillhouse.contract.failures import SingleClassError, UnusableLabelsError
from stillhouse.contract.report import Scores, TargetScore
from stillhouse.contract.spec import JobSpec, Objective, Regression, SquaredError, TrainTeacher
from stillhouse.contract.spec.task import Quality
from stillhouse.contract.spec.term import TaskKind
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

# Spreads of a target, in its own unit, that the usual step sizes get along with.
USUAL_SPREAD: Final = (0.01, 100.0)


class RegressionTask:
    """Outputs are values; labels are the true ones, in the same unit."""

    kind: Final[TaskKind] = "regression"
    quality: Final[Quality] = Regression.quality
    outputs: Final = Regression.outputs

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """Columns of the training split's targets."""
        del spec
        labels = dataset.train.samples.labels
        assert labels is not None  # noqa: S101 - without labels a teacher tells the width
        return labels.shape[1]

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Raise what fits for targets of another width, that are no finite numbers, or with nothing to learn."""
        for name, samples in dataset.given().items():
            check_label_width(samples, num_outputs, "targets", f"/data/{name}")
            if known := known_rows(samples):
                _check_values(*known, f"/data/{name}")
        for part, use in ((dataset.train, "learn"), (dataset.validation, "select by")):
            targets = part.known_labels()
            if targets is not None and len(constant_columns(targets)) == num_outputs:
                raise SingleClassError(
                    f"all targets of the {part.name} split are the same, so there is nothing to {use}",
                    param=split_param(dataset, part.name),
                )

    def name_outputs(self, dataset: Dataset, num_outputs: int) -> list[str]:
        """A name for each target: the spec's, else its number."""
        return names_of(dataset, num_outputs, self.outputs)

    def remarks(self, spec: JobSpec, dataset: Dataset, names: Sequence[str]) -> Iterator[Noted]:
        """Targets that never vary, and those whose unit makes them hard to learn."""
        del spec
        targets = dataset.train.known_labels()
        if targets is None:
            return
        constant = constant_columns(targets)
        if constant:
            same = [names[number] for number in constant]
            yield Noted(
                level="warning", code="constant_labels",
                message=f"These targets are the same for all training samples, and R² leaves them out: {listed(same)}.",
                data={"labels": same[:MAX_DETAILED]},
            )
        spreads = targets.double().std(dim=0, correction=0)
        odd = [
            f"{name} ({spread:.2g})" for number, (name, spread) in enumerate(zip(names, spreads.tolist(), strict=True))
            if number not in constant and not USUAL_SPREAD[0] <= spread <= USUAL_SPREAD[1]
        ]
        if odd:
            yield Noted(
                level="warning", code="targets_far_from_unit_scale",
                message="Targets are learned in their own unit, and networks learn best where the standard deviation "
                f"is about 1. Of these it is not: {listed(odd)}. Divide them, and what the teacher gives, by it.",
            )

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """Squared error, or the objective's own term of labels."""
        return labels_alone(objective, SquaredError())

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """Squared error."""
        del teacher
        return self.hard_objective()

    def consensus(self, teacher: Tensor, shares: Tensor | None) -> Tensor:
        """Values (N, C); of an ensemble, their mean."""
        return Views(teacher, teacher, teacher_weights=shares).mean_outputs

    def validate(self, answered: Answered) -> dict[str, float]:
        """R² against the true values, and against the teacher's."""
        values: dict[str, float] = {}
        if labelled := answered.labelled():
            values["r2"] = mean_r2(*labelled)
        if answered.teacher is not None:
            teacher = self.consensus(answered.teacher, answered.teacher_shares)
            values["agreement"] = mean_r2(answered.outputs, teacher)
        return values

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """Scores against labels and teacher, where there are any."""
        scores: dict[str, object] = {}
        if labelled := answered.labelled():
            scores |= _against_labels(*labelled, names)
        if answered.teacher is not None:
            teacher = self.consensus(answered.teacher, answered.teacher_shares)
            scores |= {
                "agreement": mean_r2(answered.outputs, teacher),
                "mse_from_teacher": float(OBJECTIVES["mse"](Views(answered.outputs.double(), teacher.double()))),
            }
        return Scores.model_validate(scores)


def r2_by_target(outputs: Tensor, reference: Tensor) -> list[float | None]:
    """1 - squared error / variance of each target, of (N, C); None of a target that never varies."""
    # Not torchmetrics': it takes a variance below 1e-4 for none, in whatever unit, and adds up in float32.
    outputs, reference = outputs.double(), reference.double()
    residuals = (reference - outputs).square().sum(dim=0)
    spreads = (reference - reference.mean(dim=0)).square().sum(dim=0)
    constant = set(constant_columns(reference))
    return [
        None if number in constant else 1 - float(residual / spread)
        for number, (residual, spread) in enumerate(zip(residuals, spreads, strict=True))
    ]


def mean_r2(outputs: Tensor, reference: Tensor) -> float:
    """Mean over the targets that vary; where none does, 1 if all are met exactly, else 0."""
    known = [value for value in r2_by_target(outputs, reference) if value is not None]
    return sum(known) / len(known) if known else float(torch.equal(outputs, reference))


def _against_labels(outputs: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, object]:
    errors = (outputs.double() - labels.double()).abs()
    maes, rmses = errors.mean(dim=0).tolist(), errors.square().mean(dim=0).sqrt().tolist()
    by_target = r2_by_target(outputs, labels)
    return {
        "mae": sum(maes) / len(maes),
        "rmse": sum(rmses) / len(rmses),
        "r2": mean_r2(outputs, labels) if any(value is not None for value in by_target) else None,
        "per_target": [
            TargetScore(target=name, mae=mae, rmse=rmse, r2=r2)
            for name, mae, rmse, r2 in zip(names, maes, rmses, by_target, strict=True)
        ] if len(names) <= MAX_DETAILED else [],
    }


def _check_values(ids: Tensor, targets: Tensor, param: str) -> None:
    odd = (~targets.isfinite()).nonzero()
    if len(odd):
        row, column = (int(place) for place in odd[0])
        raise UnusableLabelsError(
            f"target {float(targets[row, column]):g} of sample {int(ids[row])} in column {column} is no finite number",
            param=param,
        )
