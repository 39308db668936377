import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from stillhouse.contract.failures import MalformedNpzError, UnknownArrayError, UnusableArrayError
from worker.engine.data.npz import read_npz


def member(header_of: np.ndarray, shape: tuple[int, ...], data: bytes) -> bytes:
    file = io.BytesIO()
    header = {"descr": npy.dtype_to_descr(header_of.dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    return file.getvalue() + data


def archive(path: Path, content: bytes, name: str = "x.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i8", "|u1", "<f8"])
def test_arrays_are_read_contiguous_and_native(tmp_path: Path, dtype: str, save: object) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))
    save(tmp_path / "a.npz", x=array)  # type: ignore[operator]
    found = read_npz(tmp_path / "a.npz", "x")
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


def test_an_unknown_array_is_told_with_those_that_exist(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(1), labels=np.zeros(1))
    with pytest.raises(UnknownArrayError, match="images, labels"):
        read_npz(tmp_path / "a.npz", "x")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnusableArrayError, match="Python objects"):
        read_npz(tmp_path / "a.npz", "x")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"not a zip"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(MalformedNpzError):
        read_npz(tmp_path / "a.npz", "x")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x93NUMPY\x09\x00", b"nonsense", member(np.zeros(1), (10, 10), b"\0" * 8),
        member(np.zeros(1), (2**40,), b""), member(np.zeros(1), (-1,), b"\0" * 8),
    ],
)
def test_a_member_that_is_not_what_it_says_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises((MalformedNpzError, UnusableArrayError)):
        read_npz(archive(tmp_path / "a.npz", content), "x")


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(MalformedNpzError):
        read_npz(tmp_path / "a.npz", "x")
