"""From a model's outputs to answers: what each task makes of a row of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from torch import Tensor

from stillhouse.contract.spec.task import Classification, MultiLabel, Regression, Task


@dataclass(frozen=True)
class Prediction:
    """The class of one sample. `probabilities` are in the order of the model's `label_names`."""

    label: str
    index: int
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class LabelSet:
    """The labels that hold for one sample, by their probability, the most probable first.

    `probabilities` are of every label, in the order of the model's `label_names`.
    """

    labels: dict[str, float]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class TargetValues:
    """The values of one sample, by the name of the target, in the order of the model's `label_names`."""

    values: dict[str, float]


@dataclass(frozen=True)
class Vector:
    """Where one sample lies."""

    values: tuple[float, ...]


Answer = Prediction | LabelSet | TargetValues | Vector


def decide(task: Task, outputs: Tensor) -> Tensor | None:
    """Classes (N,) or which labels hold (N, C) by outputs (N, C); None where the outputs are themselves the answer."""
    if isinstance(task, Classification):
        return outputs.argmax(1)
    if isinstance(task, MultiLabel):
        return outputs >= log(task.threshold / (1 - task.threshold))
    return None


def probabilities(task: Task, outputs: Tensor) -> Tensor:
    """Probabilities (N, C) of logits (N, C). Raises ValueError for a task whose outputs are values."""
    if isinstance(task, Classification):
        return outputs.float().softmax(dim=1)
    if isinstance(task, MultiLabel):
        return outputs.float().sigmoid()
    raise ValueError(f"the outputs of {task.kind} are values, and have no probabilities")


def answers(task: Task, outputs: Tensor, names: Sequence[str]) -> list[Answer]:
    """An answer for each row of the outputs (N, C)."""
    if isinstance(task, Classification):
        return [_prediction(row, names) for row in probabilities(task, outputs).tolist()]
    if isinstance(task, MultiLabel):
        return _label_sets(task, outputs, names)
    if isinstance(task, Regression):
        return [TargetValues(dict(zip(names, row, strict=True))) for row in outputs.tolist()]
    return [Vector(tuple(row)) for row in outputs.tolist()]


def _prediction(row: Sequence[float], names: Sequence[str]) -> Prediction:
    index = max(range(len(row)), key=row.__getitem__)
    return Prediction(names[index], index, row[index], tuple(row))


def _label_sets(task: MultiLabel, outputs: Tensor, names: Sequence[str]) -> list[Answer]:
    held = decide(task, outputs)
    assert held is not None  # noqa: S101 - labels are decided
    return [
        _label_set(row, which, names)
        for row, which in zip(probabilities(task, outputs).tolist(), held.tolist(), strict=True)
    ]


def _label_set(row: Sequence[float], held: Sequence[bool], names: Sequence[str]) -> LabelSet:
    labels = [(name, probability) for name, probability, holds in zip(names, row, held, strict=True) if holds]
    return LabelSet(dict(sorted(labels, key=lambda pair: -pair[1])), tuple(row))
