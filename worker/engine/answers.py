"""What the teacher says of a batch: looked up, or asked as it comes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from worker.engine.features import Tap
from worker.engine.teachers import Teacher


class Answer(NamedTuple):
    """The teacher's part of a batch of N."""

    outputs: Tensor  # (N, C), or (N, M, C) of an ensemble
    features: Mapping[str, Tensor] = {}  # outputs of its layers by path


# Ids of the samples, which view of them, and a function that gives the raw arranged samples as the view shows them.
# Ids of the samples and width of an answer -> what the data themselves say softly of them.
SaidSoftly = Callable[[Tensor, int], Tensor | None]
Answers = Callable[[Tensor, int, Callable[[], Tensor]], Answer]


class StoredAnswers:
    """Soft labels made before: rows (V, number of samples in the file, ...) by view and id."""

    def __init__(self, rows: Tensor) -> None:
        self._views = rows.unbind()

    def __call__(self, ids: Tensor, view: int, images: Callable[[], Tensor]) -> Answer:
        """Looked up; the images are not needed."""
        del images
        return Answer(self._views[view].index_select(0, ids))


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
