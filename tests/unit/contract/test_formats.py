import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from stillhouse.client.formats import UnknownFormatError, guess_format
from stillhouse.contract.formats import recognise
from tests.fixtures.archives import PACKINGS, pack
from tests.fixtures.files import gzipped_idx, idx, npy, npz


def parquet_file() -> bytes:
    content = io.BytesIO()
    parquet.write_table(pa.table({"label": [1]}), content)
    return content.getvalue()


CONTENTS = [
    (parquet_file(), "parquet"),
    (npz({"x": npy([5])}), "npz"),
    (idx([5]), "idx"),
    (gzipped_idx([5, 28, 28]), "idx"),
    *((pack({"readme.md": b"", "cat/1.PNG": b""}, packing), "images") for packing in PACKINGS),
    *((pack({"ds/train/data-0.arrow": b""}, packing), "hugging_face") for packing in PACKINGS),
    (b"age,city\n1,Paris\n", "csv"),
    ("\ufeffâge;ville\n1;Zürich\n".encode(), "csv"),
    (b"PK\x03\x04 and no more", "npz"),
    (pack({"a.png": b""})[:600], "images"),
    (b"\x1f\x8b and no more", "idx"),
    (b"\x89PNG\r\n\x1a\n", None),
    (b"just \xff bytes", None),
    (b"a,b\n\x01\x02", None),
    (b"", None),
]


@pytest.mark.parametrize(("content", "found"), CONTENTS)
def test_a_format_is_told_from_the_content(content: bytes, found: str | None) -> None:
    file = io.BytesIO(content)
    assert recognise(file, len(content)) == found
    assert file.tell() == 0


def test_a_character_that_the_first_look_cuts_through_is_text_all_the_same() -> None:
    content = b"x" * 511 + "é".encode() + b",b\n"
    assert recognise(io.BytesIO(content), len(content)) == "csv"


def test_a_large_archive_of_nothing_known_is_not_looked_through() -> None:
    content = gzip.compress(pack({f"{number}.txt": b"" for number in range(1001)} | {"a.npy": b""}))
    assert recognise(io.BytesIO(content), len(content)) == "images"


def test_the_client_goes_by_the_name_of_weights_and_tells_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_bytes(b"age,city\n1,Paris\n")
    (tmp_path / "rows.txt").write_bytes(b"age,city\n1,Paris\n")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty").touch()
    assert guess_format(tmp_path / "teacher.pt") == "safetensors"
    assert guess_format(tmp_path / "rows.txt") == "csv"
    for name, told in (("photo.png", "say --format"), ("empty", "is empty")):
        with pytest.raises(UnknownFormatError, match=told):
            guess_format(tmp_path / name)
