"""Every shard of soft labels, found or made. Of jobs that want the same ones, each makes those that no other makes."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.contract.events import Noted, Progressed, SoftLabelsSaved, TrainerEvent
from stillhouse.contract.failures import NonFiniteSoftLabelsError
from stillhouse.contract.lending import MAX_WANTED, LabelStore, Wanted
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase
from worker.engine.checkpoint import Keeper
from worker.engine.flops import count_flops
from worker.engine.profile import Journey
from worker.engine.requests import Requested, StopRequestedError
from worker.engine.softlabels.keys import CHUNK, environment_part
from worker.engine.softlabels.plan import Labelled, Shard, plan
from worker.engine.softlabels.shards import Rows, hold, read_shard, write_shard
from worker.engine.teachers import Teacher
from worker.engine.threads import num_threads_for, threads_for

# Below the trainer's scratch folder.
FOLDER: Final = "soft_labels"
# As many shards are taken on at once as are made in this time: few round trips where shards are quick, and where they
# are slow, another job that wants the same ones makes its share.
TAKE_ON_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.25
# A shard that another job makes is waited for as long as that job lives. But where nothing comes for this long, and for
# so many times as long as making one oneself, waiting does not pay. Both write the same bits.
MIN_PATIENCE_SECONDS: Final = 30.0
PATIENCE: Final = 4.0

# Of a teacher whose work nobody can count: it gets all threads.
UNCOUNTED_FLOPS: Final = 2**62

class Shown(NamedTuple):
    """What the teacher is asked about."""

    images: Tensor  # (N, ...), raw and arranged, on the device
    given: Tensor | None  # (N, ...): what the data themselves say softly of these samples


# By split, ids (N,) and view.
Show = Callable[[str, Tensor, int], Shown]


@dataclass(frozen=True)
class Desk:
    """Where the teacher works, and whom it tells."""

    teacher: Teacher
    trained: nn.Module | None  # the model of a teacher that the job trained itself
    show: Show
    store: LabelStore
    scratch: Path
    device: str
    chunk_seconds: float  # as preflight measured it
    requested: Requested
    keeper: Keeper
    journey: Journey

    @cached_property
    def chunk_flops(self) -> int:
        """The teacher's work on a chunk; it decides how many threads it is worth."""
        architecture = self.teacher.architecture
        return UNCOUNTED_FLOPS if architecture is None else CHUNK * count_flops(architecture)


# Rows of a split by view, in the order of its samples.
ByView = list[list[Rows]]


def label_softly(
    splits: Sequence[Labelled], spec: JobSpec, desk: Desk
) -> Generator[TrainerEvent, None, dict[str, ByView]]:
    """The soft labels of each split, found in the store or made.

    Raises StopRequestedError when asked to stop, after a checkpoint; what is made stays made.
    """
    environment = environment_part(desk.device, num_threads_for(desk.chunk_flops))
    plans = {
        split.part.name: plan(
            split, spec, desk.teacher, trained=desk.trained, store=desk.store, environment=environment
        )
        for split in splits
    }
    labelling = Labelling([shard for views in plans.values() for view in views for shard in view], desk)
    yield from labelling.run()
    return {
        name: [[labelling.found[shard.key.digest] for shard in view] for view in views]
        for name, views in plans.items()
    }


class Labelling:
    """Fills `found` with all shards, by key."""

    def __init__(self, shards: Sequence[Shard], desk: Desk) -> None:
        self.found: dict[str, Rows] = {}
        self._desk = desk
        self._missing = {shard.key.digest: shard for shard in shards}
        self._num_shards = len(self._missing)
        self._total = 0  # passes that the teacher was to make when the phase began
        self._num_lent, self._seconds_saved = 0, 0.0
        self._makers: list[str] = []
        self._awaited: set[str] = set()
        self._idle_since = time.monotonic()

    def run(self) -> Iterator[TrainerEvent]:
        """Find or make every shard. Raises StopRequestedError."""
        to_make: list[str] = []
        before = -1
        while self._missing and not to_make and len(self._missing) != before:  # there may be more than in one answer
            before = len(self._missing)
            to_make = self._ask()
        if self._missing:
            yield from self._make_missing(to_make)
        if self._num_lent:
            yield Noted(
                code="soft_labels_shared",
                message=f"{self._num_lent} of {self._num_shards} files of soft labels were there or made by other "
                f"jobs; that saved {self._seconds_saved:.1f} seconds of the teacher's work.",
                data={"num_shards": self._num_shards, "shared": self._num_lent, "seconds_saved": self._seconds_saved},
            )

    def _make_missing(self, to_make: list[str]) -> Iterator[TrainerEvent]:
        self._total = self._num_chunks_missing()
        yield self._desk.journey.enter(Phase.SOFT_LABELS, self._total)
        self._idle_since = time.monotonic()
        while self._missing:
            if not to_make:
                yield from self._wait()
                to_make = self._lose_patience()
            for key in to_make:
                yield from self._make(self._missing[key])
            to_make = self._ask() if self._missing else []
        yield self._desk.journey.tell(self._total)

    def _ask(self) -> list[str]:
        """Take what is there; keys of what is to be made."""
        keys = list(self._missing)[:MAX_WANTED]
        num_to_make = max(1, min(MAX_WANTED, int(TAKE_ON_SECONDS / max(self._shard_seconds(), 1e-9))))
        lent = self._desk.store.ask(Wanted(keys=keys, num_to_make=num_to_make))
        unusable = [key for key, path in lent.ready.items() if not self._take(key, path)]
        if len(unusable) < len(lent.ready):
            self._num_lent += len(lent.ready) - len(unusable)
            self._seconds_saved += lent.seconds_saved
            self._idle_since = time.monotonic()
        self._makers = lent.makers
        return [*lent.to_make, *unusable]

    def _take(self, key: str, path: Path) -> bool:
        """Use a shard's file; whether it is what it should be."""
        shard = self._missing[key]
        rows = read_shard(path, shard.key, len(shard.ids))
        if rows is None:
            return False
        self.found[key] = rows
        del self._missing[key]
        return True

    def _wait(self) -> Iterator[TrainerEvent]:
        """Give the others time. Raises StopRequestedError."""
        yield from self._stop_if_requested()
        if makers := sorted(set(self._makers) - self._awaited):
            self._awaited.update(makers)
            yield Noted(
                code="soft_labels_awaited",
                message=f"Waits for {', '.join(makers)}, which makes the same soft labels.", data={"jobs": makers},
            )
        time.sleep(POLL_SECONDS)

    def _lose_patience(self) -> list[str]:
        """The shard that is to be made whoever else makes it, where waiting does not pay any longer."""
        if time.monotonic() - self._idle_since < max(MIN_PATIENCE_SECONDS, PATIENCE * self._shard_seconds()):
            return []
        return list(self._missing)[-1:]  # others begin with the first

    def _make(self, shard: Shard) -> Iterator[TrainerEvent]:
        began = time.monotonic()
        chunks: list[Tensor] = []
        before = self._total - self._num_chunks_missing()
        for done, ids in enumerate(shard.ids.split(CHUNK), before):
            yield from self._stop_if_requested(done)
            chunks.append(self._answer(shard, ids))
            if self._desk.journey.is_due():
                yield self._tell(done + 1)
        path = write_shard(self._folder(), hold(torch.cat(chunks), shard.key.form), shard.key)
        taken = self._take(shard.key.digest, self._desk.store.put(shard.key.digest, path))
        assert taken  # noqa: S101 - it was written a moment ago
        self._idle_since = time.monotonic()
        yield SoftLabelsSaved(
            key=shard.key.digest, split=shard.key.split, view=shard.key.view, shard=shard.key.shard,
            num_rows=len(shard.ids), seconds=self._idle_since - began, file=f"{FOLDER}/{path.name}",
        )

    def _answer(self, shard: Shard, ids: Tensor) -> Tensor:
        desk = self._desk
        with threads_for(desk.chunk_flops):
            answers = desk.teacher.answer(*desk.show(shard.key.split, ids, shard.key.view))
        finite = answers.flatten(1).isfinite().all(dim=1)
        if not bool(finite.all()):
            raise NonFiniteSoftLabelsError(
                f"the teacher's answer about sample {int(ids[(~finite).cpu()][0])} of {shard.key.split} is NaN or "
                "infinite; check its weights and teacher.normalization",
                param="/teacher",
            )
        return answers

    def _folder(self) -> Path:
        folder = self._desk.scratch / FOLDER
        folder.mkdir(exist_ok=True)
        return folder

    def _stop_if_requested(self, done: int | None = None) -> Iterator[TrainerEvent]:
        if request := self._desk.requested():
            step = self._total - self._num_chunks_missing() if done is None else done
            yield self._desk.keeper.save(Phase.SOFT_LABELS, step)
            raise StopRequestedError(request)

    def _tell(self, done: int) -> Progressed:
        return self._desk.journey.tell(done, done * CHUNK)

    def _num_chunks_missing(self) -> int:
        return sum(shard.num_chunks for shard in self._missing.values())

    def _shard_seconds(self) -> float:
        """What the largest of the missing should take."""
        return self._desk.chunk_seconds * max(shard.num_chunks for shard in self._missing.values())
