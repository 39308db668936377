"""What an objective looks at."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import LayerPair

MEMBERS_AXES = 3


class Views(NamedTuple):
    """One batch as the objectives see it. N items, C outputs."""

    student: Tensor  # outputs (N, C): logits, or values of a regression or an embedding
    # Outputs (N, C), no gradient; (N, M, C) of an ensemble of M teachers whose probabilities are averaged.
    teacher: Tensor | None = None
    # (N,) int64 classes; (N, C) float where they are shares of classes, several labels, or targets of a regression.
    labels: Tensor | None = None
    mask: Tensor | None = None  # (N,) bool: which items have a label; all of them where it is None
    ids: Tensor | None = None  # (N,) int64: place of each item in the training split
    features: Mapping[str, Tensor] = {}  # outputs of the student's layers by path
    teacher_features: Mapping[str, Tensor] = {}  # outputs of the teacher's layers by path, no gradient
    teacher_weights: Tensor | None = None  # (M,): shares of an ensemble's members; equal where it is None

    @property
    def soft_labels(self) -> Tensor:
        """The teacher's outputs (N, C) of a feed that has them; an ensemble's are averaged at temperature 1."""
        return self.soft_labels_at(1.0)

    def soft_labels_at(self, temperature: float) -> Tensor:
        """Logits (N, C) whose softmax at the temperature is what the teacher says at that temperature."""
        if self._answers.ndim < MEMBERS_AXES:
            return self._answers
        members = torch.log_softmax(wide(self._answers) / temperature, dim=2)
        return temperature * torch.logsumexp(members + self._shares(members).log()[:, None], dim=1)

    def label_odds_at(self, temperature: float) -> Tensor:
        """Logits (N, C) whose sigmoid at the temperature is what the teacher says of each label at that temperature."""
        if self._answers.ndim < MEMBERS_AXES:
            return self._answers
        members = wide(self._answers) / temperature
        log_shares = self._shares(members).log()[:, None]
        log_yes = torch.logsumexp(functional.logsigmoid(members) + log_shares, dim=1)
        log_no = torch.logsumexp(functional.logsigmoid(-members) + log_shares, dim=1)
        return temperature * (log_yes - log_no)

    @property
    def mean_outputs(self) -> Tensor:
        """The teacher's outputs (N, C) as the numbers they are; an ensemble's are averaged."""
        if self._answers.ndim < MEMBERS_AXES:
            return self._answers
        members = wide(self._answers)
        return (members * self._shares(members)[:, None]).sum(dim=1)

    @property
    def true_labels(self) -> Tensor:
        """The labels, which every feed of an objective that needs them gives."""
        assert self.labels is not None  # noqa: S101 - ours, not the user's: preflight ran this very objective
        return self.labels

    @property
    def known_labels(self) -> Tensor:
        """The labels, with 0 in place of whatever stands at items that have none."""
        if self.mask is None:
            return self.true_labels
        return torch.where(self.mask if self.true_labels.ndim == 1 else self.mask[:, None], self.true_labels, 0)

    @property
    def classes(self) -> Tensor:
        """The one true class of each item, (N,) int64; 0 at items that have none."""
        assert self.true_labels.ndim == 1  # noqa: S101 - the spec refuses shares of classes for terms that ask for this
        return self.known_labels

    def mean_of_labelled(self, per_item: Tensor) -> Tensor:
        """Mean of values (N,) over the items that have a label; 0 where none has."""
        if self.mask is None:
            return per_item.mean()
        return torch.where(self.mask, per_item, 0).sum() / self.mask.sum().clamp(min=1)

    def pairs(self, pairs: Sequence[LayerPair]) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs of the student's and the teacher's layer of each pair, at least float32; the models' own of none."""
        if not pairs:
            yield wide(self.student), wide(self.soft_labels)
        for pair in pairs:
            yield wide(self.features[pair.student]), wide(self.teacher_features[pair.teacher])

    @property
    def _answers(self) -> Tensor:
        assert self.teacher is not None  # noqa: S101 - ours, not the user's: preflight ran this very objective
        return self.teacher

    def _shares(self, members: Tensor) -> Tensor:
        """Shares (M,) of an ensemble's members, adding up to 1."""
        weights = members.new_ones(members.shape[1]) if self.teacher_weights is None else self.teacher_weights
        return (weights / weights.sum()).to(members)


class Shapes(NamedTuple):
    """What a term that learns must know before its first batch. Shapes are of one item, without the batch's axis."""

    student: Mapping[str, tuple[int, ...]]  # of the student's layers by path
    teacher: Mapping[str, tuple[int, ...]]  # of the teacher's layers by path
    num_outputs: int
    num_samples: int  # of the training split


def wide(values: Tensor) -> Tensor:
    """In at least float32: half precision loses the small probabilities that soft labels are about."""
    return values if values.dtype.itemsize >= 4 else values.float()  # noqa: PLR2004 - bytes of a float32
