"""From the ids of samples to what a step needs: inputs, soft labels, labels."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.contract.spec import Augmentation
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.data import Samples, augment
from worker.engine.teachers import Teacher, answer

# Up to this size the samples are kept normalised, as float32. It decides bits, so it is no setting.
MAX_NORMALIZED_BYTES = 2 * 1024**3
CHUNK = 1024  # samples that go through a model or a normalisation at once, where no step dictates it


class Batch(NamedTuple):
    """What one step sees. B samples."""

    inputs: Tensor  # (B, *input_shape), normalised
    teacher: Tensor | None  # logits (B, num_classes)
    labels: Tensor | None  # (B,) int64


# Ids of the batch's samples, and the epoch.
Feed = Callable[[Tensor, int], Batch]


class ReadyFeed:
    """Samples as they are: a batch is one look-up per tensor."""

    def __init__(self, inputs: Tensor, teacher: Tensor | None, labels: Tensor | None) -> None:
        self._inputs, self._teacher, self._labels = inputs, teacher, labels

    def __call__(self, ids: Tensor, epoch: int) -> Batch:
        """The samples `ids`, normalised; the epoch changes nothing."""
        del epoch
        return Batch(self._inputs.index_select(0, ids), _rows(self._teacher, ids), _rows(self._labels, ids))


class LazyFeed:
    """Samples too large to be kept normalised."""

    def __init__(
        self, arranged: Tensor, preprocessing: Preprocessing, teacher: Tensor | None, labels: Tensor | None
    ) -> None:
        self._arranged, self._preprocessing, self._teacher, self._labels = arranged, preprocessing, teacher, labels

    def __call__(self, ids: Tensor, epoch: int) -> Batch:
        """The samples `ids`, normalised now; the epoch changes nothing."""
        del epoch
        inputs = self._preprocessing.normalize(self._arranged.index_select(0, ids))
        return Batch(inputs, _rows(self._teacher, ids), _rows(self._labels, ids))


class AugmentedFeed:
    """Samples changed anew each epoch; the teacher, if any, labels what the student sees."""

    def __init__(
        self,
        samples: Samples,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        teacher: Teacher | None,
    ) -> None:
        self._samples, self._augmentation = samples, augmentation
        self._preprocessing, self._teacher = preprocessing, teacher

    def __call__(self, ids: Tensor, epoch: int) -> Batch:
        """The samples `ids` as the epoch shows them."""
        images = augment(self._samples.arranged.index_select(0, ids), ids, self._augmentation, epoch=epoch)
        soft_labels = answer(self._teacher, images) if self._teacher else None
        return Batch(self._preprocessing.normalize(images), soft_labels, _rows(self._samples.labels, ids))


def fits_normalized(arranged: Tensor) -> bool:
    """Whether these samples are kept normalised."""
    return arranged.numel() * torch.float32.itemsize <= MAX_NORMALIZED_BYTES


def normalize_all(arranged: Tensor, preprocessing: Preprocessing) -> Tensor:
    """All samples, float32, a chunk at a time: the peak is the result and one chunk."""
    normalized = torch.empty(arranged.shape, dtype=torch.float32, device=arranged.device)
    for into, chunk in zip(normalized.split(CHUNK), arranged.split(CHUNK), strict=True):
        into.copy_(preprocessing.normalize(chunk))
    return normalized


def _rows(tensor: Tensor | None, ids: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(0, ids)
