import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from app.artifacts.inspection import NpzFacts, inspect
from app.artifacts.inspection.npz import MAX_ARRAYS
from stillhouse.contract.bounds import FREE_BYTES
from stillhouse.contract.failures import EmptyDataError, MalformedNpzError, PickleRefusedError
from tests.fixtures.files import npy, npz


def facts_of(content: bytes) -> NpzFacts:
    facts = inspect(io.BytesIO(content), len(content), "npz")
    assert isinstance(facts, NpzFacts)
    return facts


@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_writes_is_read(tmp_path: Path, compressed: bool) -> None:
    arrays = {
        "inputs": np.zeros((5, 3), np.float32), "labels": np.zeros(5, np.int64), "flags": np.zeros(5, bool),
        "names": np.array(["a", "bcd"]), "z": np.zeros((2, 2), np.complex64, order="F"),
    }
    (np.savez_compressed if compressed else np.savez)(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    facts = facts_of((tmp_path / "data.npz").read_bytes())
    assert {name: (array.dtype, array.shape) for name, array in facts.arrays.items()} == {
        "inputs": ("float32", [5, 3]), "labels": ("int64", [5]), "flags": ("bool", [5]), "names": ("<U3", [2]),
        "z": ("complex64", [2, 2]),
    }


def test_an_array_of_objects_is_refused_as_the_pickle_that_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", labels=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(PickleRefusedError, match="labels"):
        facts_of((tmp_path / "data.npz").read_bytes())


def test_an_array_of_records_with_objects_is_refused() -> None:
    array = npy([1], [("a", "<i4"), ("b", [("c", "|O")])], data=bytes(12))
    with pytest.raises(PickleRefusedError):
        facts_of(npz({"x": array}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04 and no more", "not a sound zip"),
        (npz({"x": npy([5])})[:-10], "not a sound zip"),
        (b"hello", "not a sound zip"),
        (npz({"x": npy([5])}, suffix=".txt"), "is not an array"),
        (npz({"x": b"hello"}), "does not begin as a .npy"),
        (npz({"x": npy([5], data=b"1234")}), "takes"),
        (npz({"x": npy([5], data=b"123456")}), "takes"),
        (npz({"x": b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000}), "NumPy reads up to"),
        (npz({"x": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000}), "cannot be read"),
        (npz({"x": b"\x93NUMPY\x01\x00" + struct.pack("<H", 7) + b"print()"}), "cannot be read"),
        (npz({"x": b"\x93NUMPY\x01\x00" + struct.pack("<H", 2) + b"{}"}), "without dtype"),
        (npz({"x": npy([-5], data=b"")}), "without dtype"),
        (npz({str(number): npy([1]) for number in range(MAX_ARRAYS + 1)}), "more than"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(MalformedNpzError, match=told):
        facts_of(content)


def test_an_archive_without_arrays_is_refused() -> None:
    with pytest.raises(EmptyDataError):
        facts_of(npz({}))


def test_an_unusual_packing_is_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", npy([5]))
    with pytest.raises(MalformedNpzError, match="unusual"):
        facts_of(content.getvalue())


def test_a_zip_bomb_is_refused_by_what_it_claims() -> None:
    content = npz({"x": npy([FREE_BYTES * 2])}, deflated=True)
    with pytest.raises(MalformedNpzError, match="claim to unpack"):
        facts_of(content)


def test_a_huge_directory_is_not_read() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(300):
            archive.writestr(f"{number:0>60000}.npy", b"")
    with pytest.raises(MalformedNpzError, match="is larger than"):
        facts_of(content.getvalue())
