"""Soft labels that come with the data."""

from typing import Final

from torch import Tensor

from stillhouse.contract.failures import MissingSoftLabelsError
from stillhouse.contract.spec import SoftLabelsTeacher
from worker.engine.data import Dataset
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

    def __init__(self, spec: SoftLabelsTeacher, num_outputs: int) -> None:
        self._spec = spec
        self.num_outputs = num_outputs
        self.gives: Gives = "probabilities" if spec.gives == "votes" else spec.gives

    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """Outputs (N, num_outputs): logits, values, or logarithms of probabilities."""
        if given is None:
            raise MissingSoftLabelsError
        if self._spec.gives == "votes":
            given = count_votes(given.cpu(), self.num_outputs)
        outputs = log_probabilities(given, self._spec.floor) if self.gives == "probabilities" else given
        return outputs.float().to(arranged.device)


def given_teacher(spec: SoftLabelsTeacher, dataset: Dataset, num_classes: int | None, param: str) -> GivenTeacher:
    """The teacher. Raises MissingSoftLabelsError where the training split has none."""
    given = dataset.train.samples.soft_labels
    if given is None:
        raise MissingSoftLabelsError(param=param)
    voted = int(given.max()) + 1 if spec.gives == "votes" else given.shape[1]
    return GivenTeacher(spec, max(num_classes or 0, voted) if spec.gives == "votes" else voted)
