"""A job on data that lie on disk is the same job."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from stillhouse.contract.spec import JobSpec
from tests.fixtures.lessons import TEST, TRAIN, Lesson, everything
from worker.engine import feed, preflight
from worker.engine.data import Dataset, load_dataset
from worker.engine.feed import normalized_chunks


@pytest.mark.parametrize("augmentation", [None, {"transforms": [{"kind": "flip"}]}])
def test_a_job_on_data_larger_than_memory_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: dict[str, object] | None
) -> None:
    lesson = Lesson(tmp_path)
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    lesson.write_teacher()
    spec = lesson.spec(training={"augmentation": augmentation})
    in_memory = lesson.train(spec)

    def mapped(spec: JobSpec, inputs: Mapping[str, Path], scratch: Path) -> Dataset:
        return load_dataset(spec, inputs, scratch, budget=0)

    monkeypatch.setattr(preflight, "load_dataset", mapped)
    on_disk = lesson.train(spec, "mapped")
    assert on_disk.prepared.dataset.train.samples.is_mapped
    assert not in_memory.prepared.dataset.train.samples.is_mapped
    expected, found = everything(in_memory), everything(on_disk)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_mapped_split_is_read_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = Lesson(tmp_path)
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    in_memory, on_disk = (
        load_dataset(lesson.spec(), lesson.inputs, tmp_path, budget=budget) for budget in (None, 0)
    )
    monkeypatch.setattr(feed, "CHUNK", 10)
    read = list(normalized_chunks(on_disk.validation, on_disk.preprocessing, "cpu")())
    assert [len(chunk) for chunk in read] == [10, 10, 4]
    kept = normalized_chunks(in_memory.validation, in_memory.preprocessing, "cpu")
    assert torch.equal(torch.cat(read), torch.cat(list(kept())))
