"""What the teacher says of each sample, computed once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stillhouse.contract.events import TrainerEvent
from stillhouse.contract.status import Phase
from worker.engine.checkpoint import Keeper
from worker.engine.data import Part
from worker.engine.profile import Journey
from worker.engine.requests import Requested, StopRequestedError
from worker.engine.teachers import Teacher

# Fixed, since the bits of a convolution may depend on how many samples it sees at once; and small enough for a small
# network's activations to stay in the cache of a CPU.
CHUNK = 128


def label_softly(
    teacher: Teacher, parts: Sequence[Part], *, requested: Requested, keeper: Keeper, journey: Journey, device: str
) -> Iterator[TrainerEvent]:
    """Put the teacher's logits of each split into `keeper.soft_labels`, in the order of the split's ids."""
    missing = [part for part in parts if part.name not in keeper.soft_labels]
    total, done, width = num_chunks(missing), 0, teacher.num_outputs
    yield journey.enter(Phase.SOFT_LABELS, total)
    for part in missing:
        chunks: list[Tensor] = []
        for ids in part.ids.split(CHUNK):
            if request := requested():
                yield keeper.save(Phase.SOFT_LABELS, done)
                raise StopRequestedError(request)
            arranged, given = part.samples.arranged.index_select(0, ids), part.samples.said_softly(ids, width)
            chunks.append(teacher.answer(arranged.to(device), given))
            done += 1
            if journey.is_due():
                yield journey.tell(done, done * CHUNK)
        keeper.soft_labels[part.name] = torch.cat(chunks)
    yield journey.tell(total)


def num_chunks(parts: Sequence[Part]) -> int:
    """How many passes the teacher makes over these splits."""
    return sum(-(-len(part.ids) // CHUNK) for part in parts)
