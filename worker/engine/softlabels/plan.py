"""Which shards a job needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from stillhouse.contract.lending import LabelStore
from stillhouse.contract.spec import Augmentation, JobSpec
from worker.engine.data import Part
from worker.engine.softlabels.keys import (
    CHUNK,
    CODE,
    NUM_SHARD_ROWS,
    PACKAGES,
    Form,
    LabelKey,
    augmentation_part,
    data_part,
    digest_of_ids,
    teacher_part,
)
from worker.engine.teachers import Teacher


@dataclass(frozen=True)
class Labelled:
    """A split that the teacher labels once, in so many views."""

    part: Part
    num_views: int = 1
    augmentation: Augmentation | None = None
    is_exact: bool = True  # scores are computed on it


@dataclass(frozen=True)
class Shard:
    """Soft labels of some samples of a split in one view, to be found or made."""

    key: LabelKey
    ids: Tensor  # int64

    @property
    def num_chunks(self) -> int:
        """How many passes the teacher makes over it."""
        return -(-len(self.ids) // CHUNK)


# Shards of a split, by view, in the order of its samples.
Plan = list[list[Shard]]


def plan(
    split: Labelled, spec: JobSpec, teacher: Teacher, *, trained: nn.Module | None, store: LabelStore,
    environment: Mapping[str, object],
) -> Plan:
    """The shards of a split. `trained` is the model of a teacher that the job trained itself."""
    name = split.part.name
    digests = {artifact: store.digest(artifact) for artifact in spec.artifacts().values()}
    form: Form = "exact" if split.is_exact or teacher.gives == "values" else "narrow"
    first = LabelKey(
        owner=store.owner, teacher=teacher_part(spec, digests, trained), identity=teacher.identity, gives=teacher.gives,
        data=data_part(spec, name, digests), ids=digest_of_ids(split.part.ids), split=name,
        augmentation=augmentation_part(split.augmentation), view=0, shard=0, environment=environment, code=CODE,
        packages=PACKAGES, form=form,
    )
    return [_of_view(first, split.part.ids.split(NUM_SHARD_ROWS), view) for view in range(split.num_views)]


def _of_view(first: LabelKey, ids: Sequence[Tensor], view: int) -> list[Shard]:
    return [Shard(replace(first, view=view, shard=number), of_shard) for number, of_shard in enumerate(ids)]


def num_chunks(splits: Sequence[Labelled]) -> int:
    """How many passes the teacher makes over these splits."""
    return sum(
        split.num_views * sum(-(-len(ids) // CHUNK) for ids in split.part.ids.split(NUM_SHARD_ROWS))
        for split in splits
    )
