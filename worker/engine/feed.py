"""From the ids of samples to what a step needs: inputs, soft labels, labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.models.preprocessing import Preprocessing
from worker.engine.answers import Answer, Answers
from worker.engine.data import Augmented, Part, mixed_labels

# Up to this size the samples are kept normalised, as float32. It decides bits, so it is no setting.
MAX_NORMALIZED_BYTES = 2 * 1024**3
CHUNK = 1024  # samples that go through a model or a normalisation at once, where no step dictates it


class Batch(NamedTuple):
    """What one step sees. N samples."""

    ids: Tensor  # (N,) int64
    inputs: Tensor  # (N, *input_shape), normalised
    labels: Tensor | None = None  # (N,) int64, or (N, C) float
    mask: Tensor | None = None  # (N,) bool: which samples have a label; all of them where it is None
    teacher: Tensor | None = None  # outputs (N, C), or (N, M, C) of an ensemble
    teacher_features: Mapping[str, Tensor] = {}


# Normalised samples (at most CHUNK, *input_shape) of a split, one chunk after the other.
Chunks = Callable[[], Iterable[Tensor]]
# Ids of the batch's samples, and which view of them.
Feed = Callable[[Tensor, int], Batch]


# The same, as the raw images that the view shows.
Look = Callable[[Tensor, int], Augmented]


class Targets(NamedTuple):
    """What is known of every sample of a file."""

    labels: Tensor | None
    mask: Tensor | None = None


class ReadyFeed:
    """Samples as they are: a batch is one look-up per tensor."""

    def __init__(self, inputs: Tensor, targets: Targets, answers: Answers | None, arranged: Tensor) -> None:
        self._inputs, self._targets, self._answers, self._arranged = inputs, targets, answers, arranged

    def __call__(self, ids: Tensor, view: int) -> Batch:
        """The samples `ids`, normalised; the view changes nothing."""
        answer = _ask(self._answers, ids, view, lambda: self._arranged.index_select(0, ids))
        return Batch(
            ids, self._inputs.index_select(0, ids), _rows(self._targets.labels, ids), _rows(self._targets.mask, ids),
            answer.outputs if answer else None, answer.features if answer else {},
        )


class DrawnFeed:
    """Samples that are fetched and changed for every batch."""

    def __init__(
        self, look: Look, preprocessing: Preprocessing, targets: Targets, answers: Answers | None, num_classes: int
    ) -> None:
        self._look, self._preprocessing, self._targets, self._answers = look, preprocessing, targets, answers
        self._num_classes = num_classes

    def __call__(self, ids: Tensor, view: int) -> Batch:
        """The samples `ids` as the view shows them."""
        seen = self._look(ids, view)
        answer = _ask(self._answers, ids, view, lambda: seen.images)
        targets = self._targets_of(ids, seen)
        return Batch(
            ids, self._preprocessing.normalize(seen.images), targets.labels, targets.mask,
            answer.outputs if answer else None, answer.features if answer else {},
        )

    def _targets_of(self, ids: Tensor, seen: Augmented) -> Targets:
        labels, mask = _rows(self._targets.labels, ids), _rows(self._targets.mask, ids)
        if seen.partners is None or seen.shares is None or labels is None or self._targets.labels is None:
            return Targets(labels, mask)
        theirs = self._targets.labels.index_select(0, seen.partners)
        their_mask = _rows(self._targets.mask, seen.partners)
        both = mask & their_mask if mask is not None and their_mask is not None else None
        return Targets(mixed_labels(labels, theirs, seen.shares, self._num_classes), both)


def fits_normalized(arranged: Tensor) -> bool:
    """Whether these samples are kept normalised."""
    return arranged.numel() * torch.float32.itemsize <= MAX_NORMALIZED_BYTES


def normalized_chunks(part: Part, preprocessing: Preprocessing, device: str) -> Chunks:
    """The samples of a split, normalised; kept so where the samples are in memory, else read anew each time."""
    if part.samples.is_mapped:
        return partial(_read_normalized, part, preprocessing, device)
    arranged = part.samples.arranged.index_select(0, part.ids).to(device)
    return partial(normalize_all(arranged, preprocessing).split, CHUNK)


def _read_normalized(part: Part, preprocessing: Preprocessing, device: str) -> Iterator[Tensor]:
    for ids in part.ids.split(CHUNK):
        yield preprocessing.normalize(part.samples.arranged.index_select(0, ids).to(device))


def normalize_all(arranged: Tensor, preprocessing: Preprocessing) -> Tensor:
    """All samples, float32, a chunk at a time: the peak is the result and one chunk."""
    normalized = torch.empty(arranged.shape, dtype=torch.float32, device=arranged.device)
    for into, chunk in zip(normalized.split(CHUNK), arranged.split(CHUNK), strict=True):
        into.copy_(preprocessing.normalize(chunk))
    return normalized


def _ask(answers: Answers | None, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer | None:
    return answers(ids, view, images) if answers else None


def _rows(tensor: Tensor | None, ids: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(0, ids)
