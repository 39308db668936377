import gzip
import shutil
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from stillhouse.contract.failures import OutOfMemoryError, StorageFullError, UnusableArrayError
from tests.fixtures.archives import noise
from tests.fixtures.datasets import Shelf
from worker.engine import memory
from worker.engine.data import Samples, load_dataset
from worker.engine.data.room import Room, is_mapped


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_what_fits_lies_in_memory_and_what_does_not_on_disk(tmp_path: Path) -> None:
    given = Room(tmp_path, budget=100)
    arrays = [given.array("x", (size,), "uint8") for size in (60, 40, 1, 0)]
    assert [is_mapped(array) for array in arrays] == [False, False, True, False]
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["0"]


def test_half_of_what_is_available_is_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.data.room.available_bytes", lambda: 100)
    assert not is_mapped(Room(tmp_path).array("x", (50,), "uint8"))
    assert is_mapped(Room(tmp_path).array("x", (51,), "uint8"))
    monkeypatch.setattr("worker.engine.data.room.available_bytes", lambda: None)
    assert not is_mapped(Room(tmp_path).array("x", (10**6,), "uint8"))


def test_without_a_folder_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 1 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    with pytest.raises(OutOfMemoryError, match="the samples needs about 2,000"):
        Room().array("the samples", (2000,), "uint8")


def test_a_full_disk_and_absurd_sizes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableArrayError, match="at most"):
        Room(tmp_path, budget=0).array("x", (2**41,), "uint8")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 5, 5))
    with pytest.raises(StorageFullError, match="needs 6 bytes of the worker's disk, and 5 are free"):
        Room(tmp_path, budget=0).array("x", (6,), "uint8")


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_mapped_array_holds_what_is_written(tmp_path: Path, rows: int) -> None:
    array = Room(tmp_path, budget=0).array("x", (rows, 5), "int32")
    array[:] = np.arange(rows * 5).reshape(rows, 5)
    assert np.fromfile(tmp_path / "samples" / "0", np.int32).tolist() == list(range(rows * 5))


def write_npz(shelf: Shelf, inputs: Any, how: Any = np.savez) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - arrays
    how(shelf.folder / "a.npz", inputs=inputs, labels=np.arange(len(inputs)) % 3)
    return "npz", {"artifact": shelf.put("npz", (shelf.folder / "a.npz").read_bytes())}


def write_idx(shelf: Shelf, inputs: Any, code: int) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - arrays
    def idx(array: Any, of: int) -> bytes:  # noqa: ANN401 - arrays
        header = bytes([0, 0, of, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        return gzip.compress(header + array.astype(array.dtype.newbyteorder(">")).tobytes())

    labels = (np.arange(len(inputs)) % 3).astype(np.uint8)
    return "idx", {"inputs": shelf.put("x", idx(inputs, code)), "labels": shelf.put("y", idx(labels, 8))}


RANDOM = np.random.default_rng(0)
WRITTEN = {
    "grey": lambda shelf: write_npz(shelf, noise(40, 6, 5)),
    "colour": lambda shelf: write_npz(shelf, noise(40, 6, 5, 3)),
    "colour, deflated": lambda shelf: write_npz(shelf, noise(40, 6, 5, 3), np.savez_compressed),
    "channels first": lambda shelf: write_npz(shelf, noise(40, 3, 6, 5)),
    "big endian": lambda shelf: write_npz(shelf, RANDOM.normal(size=(40, 7)).astype(">f8")),
    "widened": lambda shelf: write_npz(shelf, RANDOM.integers(0, 60_000, (40, 7)).astype(np.uint16)),
    "half": lambda shelf: write_npz(shelf, RANDOM.normal(size=(40, 7)).astype(np.float16)),
    "idx": lambda shelf: write_idx(shelf, noise(40, 6, 5), 0x08),
    "idx of numbers": lambda shelf: write_idx(shelf, RANDOM.normal(size=(40, 7)).astype(np.float32), 0x0D),
}


def samples_of(shelf: Shelf, kind: str, train: dict[str, Any], budget: int | None) -> Samples:
    return load_dataset(shelf.spec(kind, train), shelf.inputs, shelf.folder, budget=budget).train.samples


@pytest.mark.parametrize("name", WRITTEN)
def test_arrays_are_the_same_in_memory_and_on_disk(shelf: Shelf, name: str) -> None:
    kind, train = WRITTEN[name](shelf)
    in_memory, mapped = (samples_of(shelf, kind, train, budget) for budget in (None, 0))
    assert (in_memory.is_mapped, mapped.is_mapped) == (False, True)
    assert mapped.arranged.dtype == in_memory.arranged.dtype
    assert torch.equal(mapped.arranged, in_memory.arranged)
    assert torch.equal(mapped.raw, in_memory.raw)
    assert mapped.arranged.is_contiguous()


def test_everything_measured_is_the_same_too(shelf: Shelf) -> None:
    kind, train = WRITTEN["colour"](shelf)
    spec = shelf.spec(kind, train)
    in_memory, mapped = (load_dataset(spec, shelf.inputs, shelf.folder, budget=budget) for budget in (None, 0))
    assert mapped.preprocessing == in_memory.preprocessing
    assert torch.equal(mapped.validation.ids, in_memory.validation.ids)
