"""Soft labels that come with the data."""

from typing import Any, Final

from torch import Tensor

from stillhouse.contract.failures import MissingSoftLabelsError
from stillhouse.contract.spec import SoftLabelsTeacher
from worker.engine.data import Dataset, SoftLabels
from worker.engine.teachers.probabilities import count_votes, log_probabilities
from worker.engine.teachers.teacher import Gives


class GivenTeacher:
    """Answers with what the data say of a sample, whatever its image looks like after augmentation."""

    module: Final = None
    architecture: Final = None
    shares: Final = None
    num_parameters: Final = None
    num_bytes: Final = None
    description: Final = "soft labels of the data"

    def __init__(self, spec: SoftLabelsTeacher, soft_labels: SoftLabels, num_outputs: int) -> None:
        self._floor, self._are_votes = spec.floor, soft_labels.kind == "votes"
        self.num_outputs = num_outputs
        self.gives = _gives(spec, soft_labels)

    @property
    def identity(self) -> dict[str, Any]:
        """How the answers are read; they themselves are a part of the data."""
        return {
            "backend": "given", "votes": self._are_votes, "gives": self.gives, "floor": self._floor,
            "num_outputs": self.num_outputs,
        }

    def timed_pass(self, arranged: Tensor, threads: int) -> None:
        """Nothing is computed."""

    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """Outputs (N, num_outputs): logits, values, or logarithms of probabilities."""
        if given is None:
            raise MissingSoftLabelsError
        rows = count_votes(given.cpu(), self.num_outputs) if self._are_votes else given
        outputs = log_probabilities(rows, self._floor) if self.gives == "probabilities" else rows
        return outputs.float().to(arranged.device)


def given_teacher(spec: SoftLabelsTeacher, dataset: Dataset, num_classes: int | None, param: str) -> GivenTeacher:
    """The teacher. Raises MissingSoftLabelsError where a split has none."""
    given = dataset.train.samples.soft_labels
    if given is None:
        raise MissingSoftLabelsError(param=param)
    for part in dataset.parts:
        if part.samples.soft_labels is None:
            raise MissingSoftLabelsError(
                f"the teacher's answers come with the data, and data.{part.name} names none; give "
                f"data.{part.name}.soft_labels, or leave the split out",
                param=f"/data/{part.name}",
            )
    known = num_classes or (len(dataset.label_names) if dataset.label_names else 0)
    width = given.num_classes if given.kind == "vectors" else max(known, given.num_classes)
    return GivenTeacher(spec, given, width)


def _gives(spec: SoftLabelsTeacher, soft_labels: SoftLabels) -> Gives:
    if soft_labels.kind == "votes":
        return "probabilities"
    if soft_labels.kind == "top_k":
        return "logits" if soft_labels.are_logits else "probabilities"
    return spec.gives
