import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from stillhouse.contract.failures import MalformedIdxError, UnusableArrayError
from worker.engine.data.idx import DTYPES, read_idx


def idx(array: np.ndarray, code: int) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("code", DTYPES)
def test_every_type_is_read_in_native_order(tmp_path: Path, code: int, zipped: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(DTYPES[code])
    content = idx(array, code)
    (tmp_path / "a").write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    found = read_idx(tmp_path / "a")
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3), 0x08)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", GOOD[:3], GOOD[:9], GOOD[:-1], GOOD + b"x", b"PK" + GOOD, b"\0\0\x07\x01" + GOOD[4:],
        b"\0\0\x08\0", gzip.compress(GOOD, mtime=0)[:-9], gzip.compress(GOOD[:-2], mtime=0), b"\x1f\x8b" + b"\0" * 30,
        gzip.compress(GOOD, mtime=0)[:20] + b"\xff" * 30,
    ],
)
def test_what_is_not_idx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(MalformedIdxError):
        read_idx(tmp_path / "a")


def test_a_header_that_declares_too_much_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\0\x0e\x04" + struct.pack(">4I", *[2**31] * 4))
    with pytest.raises(UnusableArrayError, match="can be decoded"):
        read_idx(tmp_path / "a")


def test_no_samples_are_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(idx(np.empty((0, 3), np.uint8), 0x08))
    assert read_idx(tmp_path / "a").shape == (0, 3)
