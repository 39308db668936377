import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.fixtures.archives import noise
from tests.fixtures.datasets import Shelf
from tests.unit.engine.data.test_room import write_npz
from worker.engine.data import Batches, MappedSource, MemorySource, Samples, load_dataset


@pytest.fixture
def samples(shelf: Shelf) -> dict[str, Samples]:
    kind, train = write_npz(shelf, noise(60, 6, 5, 3))
    spec = shelf.spec(kind, train)
    return {
        name: load_dataset(spec, shelf.inputs, shelf.folder, budget=budget).train.samples
        for name, budget in (("memory", None), ("mapped", 0))
    }


def test_batches_have_the_same_bits_from_memory_and_from_disk(samples: dict[str, Samples]) -> None:
    sources = {name: found.source("cpu") for name, found in samples.items()}
    assert isinstance(sources["memory"], MemorySource)
    assert isinstance(sources["mapped"], MappedSource)
    batches = Batches(torch.arange(60), batch_size=16, seed=3)
    for step in range(12):
        for source in sources.values():
            source.expect(batches(step + 1))
        ids = batches(step)
        found = {name: source.rows(ids) for name, source in sources.items()}
        assert torch.equal(found["mapped"], found["memory"])
        assert torch.equal(found["memory"], samples["memory"].arranged[ids])
    sources["mapped"].close()


class Counted(MappedSource):
    """Remembers which ids were gathered, and by which thread."""

    def __init__(self, arranged: Tensor) -> None:
        super().__init__(arranged, "cpu")
        self.gathered: list[tuple[list[int], bool]] = []

    def _gather(self, ids: Tensor) -> Tensor:
        self.gathered.append((ids.tolist(), threading.current_thread() is threading.main_thread()))
        return super()._gather(ids)


@pytest.fixture
def counted(samples: dict[str, Samples]) -> Counted:
    return Counted(samples["mapped"].arranged)


IDS = [torch.tensor([5, 3]), torch.tensor([1, 2]), torch.tensor([9, 9])]


@pytest.mark.parametrize("again", [lambda ids: ids, lambda ids: ids.clone()])
def test_what_is_expected_is_gathered_once_and_before(counted: Counted, again: Callable[[Tensor], Tensor]) -> None:
    for ids in IDS:
        counted.expect(ids)
    for ids in IDS:
        assert torch.equal(counted.rows(again(ids)), counted._arranged[ids])  # noqa: SLF001 - what lies there
    assert counted.gathered == [(ids.tolist(), False) for ids in IDS]
    counted.close()


def test_what_was_not_expected_is_gathered_now(counted: Counted) -> None:
    counted.expect(IDS[0])
    assert torch.equal(counted.rows(IDS[1]), counted._arranged[IDS[1]])  # noqa: SLF001 - what lies there
    assert torch.equal(counted.rows(IDS[0]), counted._arranged[IDS[0]])  # noqa: SLF001 - what lies there
    assert (IDS[1].tolist(), True) in counted.gathered
    counted.close()


def test_batches_are_not_the_samples_themselves(samples: dict[str, Samples]) -> None:
    for found in samples.values():
        source = found.source("cpu")
        source.rows(torch.tensor([0])).zero_()
        assert bool(found.arranged[0].any())


def test_samples_on_disk_stay_there(samples: dict[str, Samples]) -> None:
    moved = samples["mapped"].to("cpu")
    assert moved.arranged is samples["mapped"].arranged
    assert moved.is_mapped
