"""What the teacher says of a batch: looked up, or asked as it comes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worker.engine.features import Tap
from worker.engine.softlabels import Rows, join
from worker.engine.teachers import Teacher

# Up to this size stored soft labels are kept widened on the device, as float32. No bits depend on it.
MAX_READY_BYTES = 2 * 1024**3


class Answer(NamedTuple):
    """The teacher's part of a batch of N."""

    outputs: Tensor  # (N, C), or (N, M, C) of an ensemble
    features: Mapping[str, Tensor] = {}  # outputs of its layers by path


# Ids of the samples and width of an answer -> what the data themselves say softly of them.
SaidSoftly = Callable[[Tensor, int], Tensor | None]
# Ids of the samples, which view of them, and a function that gives the raw arranged samples as the view shows them.
Answers = Callable[[Tensor, int, Callable[[], Tensor]], Answer]


class StoredAnswers:
    """Soft labels made before: rows (V, number of samples in the file, ...) by view and id."""

    def __init__(self, rows: Tensor) -> None:
        self._views = rows.unbind()

    def __call__(self, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer:
        """Looked up; the images are not needed."""
        del images
        return Answer(self._views[view].index_select(0, ids))


class MappedAnswers:
    """Soft labels made before that do not fit into memory: rows are read from their files and widened batch by batch.

    The same numbers, bit for bit, as `StoredAnswers` would give.
    """

    def __init__(self, views: Sequence[Sequence[Rows]], places: Tensor, device: str) -> None:
        """Rows by view, in the order of the split; `places` (samples in the file,) tells a sample's place there."""
        self._views, self._places, self._device = views, places, device
        self._ends = torch.tensor([len(rows) for rows in views[0]]).cumsum(0)

    def __call__(self, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer:
        """Looked up; the images are not needed."""
        del images
        places, order = self._places.index_select(0, ids.cpu()).sort()
        shards = torch.bucketize(places, self._ends, right=True)
        counts = torch.bincount(shards, minlength=len(self._ends)).tolist()
        begins = [0, *self._ends.tolist()]
        found = [
            rows.select(of_shard - begin)
            for rows, begin, of_shard in zip(self._views[view], begins, places.split(counts), strict=False)
            if len(of_shard)
        ]
        widened = join(found).widen()
        return Answer(torch.empty_like(widened).index_copy_(0, order, widened).to(self._device))


class OnlineAnswers:
    """The teacher, asked about every batch; of the named layers it tells the outputs too."""

    def __init__(self, teacher: Teacher, layers: Mapping[str, str], said_softly: SaidSoftly) -> None:
        self._teacher, self._said_softly = teacher, said_softly
        self._tap = Tap(teacher.module, layers) if teacher.module is not None and layers else None

    def __call__(self, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer:
        """What the teacher says of what the student sees."""
        del view
        outputs = self._teacher.answer(images(), self._said_softly(ids, self._teacher.num_outputs))
        return Answer(outputs, self._tap.take() if self._tap else {})


class RepeatedAnswers:
    """One answer for everybody: what a step with stored answers costs is measured with it."""

    def __init__(self, teacher: Teacher, arranged: Tensor, given: Tensor | None) -> None:
        self._answer = Answer(teacher.answer(arranged, given))

    def __call__(self, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer:
        """The answer, whatever is asked."""
        del ids, view, images
        return self._answer


def stored(views: Sequence[Sequence[Rows]], ids: Tensor, num_samples: int, device: str) -> Answers:
    """Answers out of rows by view, in the order of a split's `ids` (N,) out of `num_samples` in its file."""
    shape = views[0][0].shape
    if len(views) * num_samples * shape.numel() * torch.float32.itemsize > MAX_READY_BYTES:
        places = torch.zeros(num_samples, dtype=torch.int64).index_copy_(0, ids, torch.arange(len(ids)))
        return MappedAnswers(views, places, device)
    # One row per sample of the file, so that a sample's id finds its row.
    ready = torch.zeros(len(views), num_samples, *shape, device=device)
    for into, rows in zip(ready, views, strict=True):
        for place, part in zip(ids.split([len(part) for part in rows]), rows, strict=True):
            into.index_copy_(0, place.to(device), part.widen().to(device))
    return StoredAnswers(ready)
