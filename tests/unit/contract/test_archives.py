import io
import stat
import struct
import tarfile
import zipfile

import pytest

from stillhouse.contract import archives
from stillhouse.contract.archives import below, find_folder, is_image, walk
from stillhouse.contract.bounds import FREE_BYTES
from stillhouse.contract.failures import (
    ArchiveTooLargeError,
    MalformedArchiveError,
    UnsafeArchiveError,
)
from tests.fixtures.archives import PACKINGS, Packing, pack, tar_member, tar_of

FILES = {"train/cat/1.png": b"one", "train/dog/é 2.jpg": b"two" * 100_000, "readme.txt": b"", "train/cat/3.png": b"3"}


def read(content: bytes) -> dict[str, bytes]:
    return {member.name: member.read(10**6) for member in walk(io.BytesIO(content), len(content))}


def names(content: bytes) -> list[str]:
    return [member.name for member in walk(io.BytesIO(content), len(content))]


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_file_is_read_in_the_order_of_the_archive(packing: Packing) -> None:
    content = pack(FILES, packing)
    assert read(content) == FILES
    assert names(content) == list(FILES)


@pytest.mark.parametrize("packing", PACKINGS)
def test_names_are_plain_and_what_file_managers_leave_is_passed_over(packing: Packing) -> None:
    content = pack({
        "./a//b.png": b"1", ".DS_Store": b"2", "a/._b.png": b"3", "__MACOSX/a/b.png": b"4", ".git/c.png": b"5",
    }, packing)
    assert read(content) == {"a/b.png": b"1"}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.png", "a/../../b.png", "a\\..\\b.png", "C:/b.png"])
def test_a_path_outside_is_refused(packing: Packing, name: str) -> None:
    with pytest.raises(UnsafeArchiveError, match="outside"):
        names(pack({"a.png": b"1", name: b"2"}, packing))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, {"type": tarfile.LNKTYPE, "linkname": "a.png"},
        {"type": tarfile.CHRTYPE}, {"type": tarfile.BLKTYPE}, {"type": tarfile.FIFOTYPE},
    ],
)
def test_links_and_devices_of_a_tar_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnsafeArchiveError, match=r"`bad\.png` is a link, a device or sparse"):
        names(tar_of(tar_member("a.png"), tar_member("bad.png", **fields)))


def test_a_sparse_file_which_unpacks_to_more_than_it_takes_is_refused() -> None:
    member = tar_member("bad.png", size=0, pax_headers={
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40),
    })
    with pytest.raises(UnsafeArchiveError, match="sparse"):
        names(tar_of(member))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip_are_refused(mode: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = zipfile.ZipInfo("bad.png")
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="link or a device"):
        names(content.getvalue())


def test_an_encrypted_member_is_refused() -> None:
    content = bytearray(pack({"a.png": b"secret"}, "zip"))
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + place] |= 1
    with pytest.raises(UnsafeArchiveError, match="encrypted"):
        names(bytes(content))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile, on writing what is to be refused
def test_a_name_that_comes_twice_is_refused(packing: Packing) -> None:
    with pytest.raises(MalformedArchiveError, match=r"repeats the name `a/b\.png`"):
        names(pack({"a/b.png": b"1", "a/./b.png": b"2"}, packing))


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_without_a_name_is_refused(packing: Packing) -> None:
    for content in (pack({"a.png": b"x", ".": b"y"}, packing), zip_without_a_name()):
        with pytest.raises(MalformedArchiveError, match="without a name"):
            names(content)


def zip_without_a_name() -> bytes:
    """As the standard library does not write it."""
    whole = pack({"x": b"y"}, "zip")
    middle, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    local = whole[:26] + bytes(4) + whole[31:middle]
    directory = whole[middle:middle + 28] + bytes(2) + whole[middle + 30:middle + 46] + whole[middle + 47:end]
    return local + directory + whole[end:end + 12] + struct.pack("<II", len(directory), len(local)) + bytes(2)


def test_names_that_are_not_utf_8_are_refused() -> None:
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tar_member("é.png"))
    with pytest.raises(MalformedArchiveError, match="not UTF-8"):
        names(tape.getvalue())
    with pytest.raises(MalformedArchiveError, match="not UTF-8"):
        names(without_utf8_flag(pack({"\u00e9.png": b""}, "zip"), b"\xe9x"))


def test_names_in_utf_8_without_its_flag_are_read_as_macos_means_them() -> None:
    content = pack({"é.png": b"1"}, "zip")
    assert read(without_utf8_flag(content, "é".encode())) == {"é.png": b"1"}


def without_utf8_flag(content: bytes, name: bytes) -> bytes:
    """A zip whose first two bytes of each name are others, and who does not say that it is in UTF-8."""
    changed = bytearray(content.replace("é".encode(), name))
    for magic, place in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        changed[changed.index(magic) + place] &= 0xF7
    return bytes(changed)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_an_archive_that_is_cut_short_is_never_taken_for_a_whole_one(packing: Packing, share: float) -> None:
    content = pack({f"{number}.png": bytes(512) for number in range(100)}, packing)
    with pytest.raises(MalformedArchiveError):
        read(content[:int(len(content) * share)])


def test_a_tar_that_ends_between_two_members_is_cut_short() -> None:
    content = pack({"a.png": b"1", "b.png": b"2"})
    with pytest.raises(MalformedArchiveError, match="cut short after 1 members"):
        names(content[:1024])


def test_a_damaged_header_is_not_taken_for_the_end() -> None:
    content = bytearray(pack({"a.png": b"1", "b.png": b"2"}))
    content[1024 + 148] ^= 1
    with pytest.raises(MalformedArchiveError, match="damaged"):
        names(bytes(content))


def test_damaged_content_is_told_with_its_member() -> None:
    content = bytearray(pack({"a.png": bytes(range(256)) * 40}, "zip"))
    content[60] ^= 0xFF
    with pytest.raises(MalformedArchiveError, match=r"`a\.png`"):
        read(bytes(content))


def test_an_unusual_packing_is_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"1")
    with pytest.raises(MalformedArchiveError, match="unusual"):
        names(content.getvalue())


@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
def test_a_bomb_is_refused_before_it_has_unpacked(packing: Packing) -> None:
    bomb = pack({"a.png": bytes(2 * FREE_BYTES)}, packing)
    with pytest.raises(ArchiveTooLargeError, match=r"honestly be|more than"):
        names(bomb)


def test_a_header_that_claims_to_be_long_is_not_read() -> None:
    header = tar_member("x", type=tarfile.XHDTYPE, size=2**32).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(MalformedArchiveError, match="longer than"):
        names(header + bytes(4096))


@pytest.mark.parametrize("packing", PACKINGS)
def test_too_many_members_are_refused(packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert len(names(pack({f"{number}.png": b"" for number in range(3)}, packing))) == 3
    with pytest.raises(ArchiveTooLargeError, match="more than 3"):
        names(pack({f"{number}.png": b"" for number in range(4)}, packing))


def test_a_large_member_is_refused_by_whoever_reads_it_whole() -> None:
    content = pack({"a.png": bytes(100)})
    (member,) = walk(io.BytesIO(content), len(content))
    with pytest.raises(ArchiveTooLargeError, match=r"`a\.png` has 100 bytes; at most 99"):
        member.read(99)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_member_is_read_in_any_pieces_and_never_beyond_its_end(packing: Packing) -> None:
    content = pack({"a.png": bytes(range(250)), "b.png": b"next"}, packing)
    for member in walk(io.BytesIO(content), len(content)):
        if member.name == "a.png":
            with member.open() as file:
                assert [file.read(100), file.read(0), file.read(100), file.read(100), file.read(1)] == [
                    bytes(range(100)), b"", bytes(range(100, 200)), bytes(range(200, 250)), b"",
                ]


def test_an_image_is_told_by_its_name_and_other_formats_are_not_left_out_in_silence() -> None:
    assert is_image("a/B.JPEG")
    assert not is_image("a/notes.txt")
    with pytest.raises(MalformedArchiveError, match=r"x\.tiff"):
        is_image("a/x.tiff")


def test_a_folder_is_a_whole_part_of_a_path() -> None:
    assert below("train/cat/1.png", None) == "train/cat/1.png"
    assert below("train/cat/1.png", "train/") == "cat/1.png"
    assert below("training/cat/1.png", "train") is None


@pytest.mark.parametrize(
    ("given", "split", "folders", "found"),
    [
        (None, "train", ["ds"], "ds"), (None, "train", ["ds/train", "ds/test"], "ds/train"), (None, "train", [""], ""),
        (None, "validation", ["train", "test"], None), ("ds/test/", "train", ["ds/train", "ds/test"], "ds/test"),
        ("elsewhere", "train", ["train"], None), (None, "train", ["a/train", "b/train"], None),
    ],
)
def test_the_folder_of_a_split(given: str | None, split: str, folders: list[str], found: str | None) -> None:
    assert find_folder(given, split, folders) == found
