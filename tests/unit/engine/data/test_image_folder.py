import numpy as np
import pytest
import torch

from stillhouse.contract.failures import (
    ArchiveTooLargeError,
    ImageTooLargeError,
    MalformedArchiveError,
    MalformedImageError,
    StillhouseError,
    UnknownFolderError,
    UnknownLabelError,
    UnsafeArchiveError,
    UnusableLabelsError,
)
from tests.fixtures.archives import PACKINGS, Packing, encoded, noise, pack, tar_member, tar_of
from tests.fixtures.datasets import Shelf
from worker.engine.data import decode, load_dataset
from worker.engine.memory import available_bytes

CLASSES = ("dog", "cat", "cow")
IMAGES = noise(24, 6, 5, 3)


def files(*, prefix: str = "", start: int = 0, stop: int = 24) -> dict[str, bytes]:
    return {
        f"{prefix}{CLASSES[number % 3]}/{number}.png": encoded(IMAGES[number]) for number in range(start, stop)
    }


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_first_folder_is_the_class(shelf: Shelf, packing: Packing) -> None:
    artifact = shelf.put("pets", pack(files() | {"notes.txt": b"not an image", ".DS_Store": b""}, packing))
    dataset = shelf.load("images", {"artifact": artifact})
    samples = dataset.train.samples
    assert dataset.label_names == ["cat", "cow", "dog"]
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 0, 1] * 8
    assert np.array_equal(samples.raw.numpy(), IMAGES)
    assert samples.arranged.is_contiguous()
    assert dataset.preprocessing.layout == "hwc"
    assert torch.equal(dataset.preprocessing.arrange(samples.raw), samples.arranged)


@pytest.mark.parametrize("packing", PACKINGS)
def test_splits_can_be_folders_of_one_archive(shelf: Shelf, packing: Packing) -> None:
    both = files(prefix="pets/train/", stop=18) | files(prefix="pets/test/", start=18)
    artifact = shelf.put("pets", pack(both, packing))
    dataset = shelf.load(
        "images", {"artifact": artifact, "folder": "pets/train"},
        test={"artifact": artifact, "folder": "pets/test/", "labels": None},
    )
    assert dataset.test is not None
    assert (len(dataset.train.samples), len(dataset.test.samples)) == (18, 6)
    assert np.array_equal(dataset.test.samples.raw.numpy(), IMAGES[18:])
    assert dataset.test.labels is None


def test_folders_below_the_class_make_no_difference(shelf: Shelf) -> None:
    artifact = shelf.put("pets", pack({name.replace("/", "/young/"): data for name, data in files().items()}))
    assert shelf.load("images", {"artifact": artifact}).label_names == ["cat", "cow", "dog"]


def test_a_class_of_another_split_that_is_not_trained_is_told(shelf: Shelf) -> None:
    train, test = shelf.put("pets", pack(files())), shelf.put("more", pack({"bird/1.png": encoded(IMAGES[0])}))
    with pytest.raises(UnknownLabelError, match="`bird` of sample 0") as caught:
        shelf.load("images", {"artifact": train}, test={"artifact": test})
    assert caught.value.param == "/data/test"


REFUSED: list[tuple[bytes, dict[str, str], type[StillhouseError], str, str]] = [
    (pack(files()), {"folder": "pets"}, UnknownFolderError, "below pets", "/data/train/folder"),
    (pack({"notes.txt": b""}), {}, UnknownFolderError, "below its root", "/data/train/folder"),
    (pack(files() | {"1.png": b""}), {}, UnusableLabelsError, "`1.png` lies in no folder", "/data/train/labels"),
    (pack({"cat/../../1.png": b""}), {}, UnsafeArchiveError, "outside", "/data/train"),
    (tar_of(tar_member("cat/1.png", type=b"2", linkname="/etc/passwd")), {}, UnsafeArchiveError, "link", "/data/train"),
    (pack(files())[:5000], {}, MalformedArchiveError, "cut short|end of data", "/data/train"),
    (b"hello", {}, MalformedArchiveError, "not a sound", "/data/train"),
    (b"", {}, MalformedArchiveError, "not a sound", "/data/train"),
    (pack(files() | {"cat/x.png": b"no image"}), {}, MalformedImageError, "`cat/x.png`: it is no image", "/data/train"),
    (pack(files() | {"cat/x.png": encoded(IMAGES[0])[:70]}), {}, MalformedImageError,
     "`cat/x.png`: it is cut short or damaged", "/data/train"),
]


@pytest.mark.parametrize(("content", "split", "failure", "told", "param"), REFUSED)
def test_what_cannot_be_read_is_told_with_its_member(
    shelf: Shelf, content: bytes, split: dict[str, str], failure: type[StillhouseError], told: str, param: str
) -> None:
    artifact = shelf.put("pets", content)
    with pytest.raises(failure, match=told) as caught:
        shelf.load("images", {"artifact": artifact, **split})
    assert caught.value.param == param


def test_large_images_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = shelf.put("pets", pack(files() | {"cat/wide.png": encoded(np.zeros((1, 70_000_000 // 8), np.uint8))}))
    monkeypatch.setattr("stillhouse.models.images.MAX_PIXELS", 10**6)
    with pytest.raises(ImageTooLargeError, match=r"`cat/wide\.png`"):
        shelf.load("images", {"artifact": artifact}, image={"size": [6, 5], "channels": 3})
    monkeypatch.setattr(decode, "MAX_IMAGE_BYTES", 100)
    monkeypatch.setattr("worker.engine.data.image_folder.MAX_IMAGE_BYTES", 100)
    with pytest.raises(ArchiveTooLargeError, match="at most 100"):
        shelf.load("images", {"artifact": artifact})


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_neither_order_nor_the_error_that_is_told(shelf: Shelf, num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        samples = shelf.load("images", {"artifact": shelf.put("pets", pack(files()))}).train.samples
        assert np.array_equal(samples.raw.numpy(), IMAGES)
        broken = files() | {"cat/x.png": b"first"} | files(start=24) | {"cat/y.png": b"second"}
        with pytest.raises(MalformedImageError, match=r"`cat/x\.png`"):
            shelf.load("images", {"artifact": shelf.put("broken", pack(broken))})
    finally:
        torch.set_num_threads(before)


def test_what_is_larger_than_memory_is_decoded_to_disk_with_the_same_bits(shelf: Shelf) -> None:
    assert available_bytes() is not None
    artifact = shelf.put("pets", pack(files()))
    spec = shelf.spec("images", {"artifact": artifact})
    in_memory = load_dataset(spec, shelf.inputs).train.samples
    mapped = load_dataset(spec, shelf.inputs, shelf.folder, budget=1000).train.samples
    assert not in_memory.is_mapped
    assert mapped.is_mapped
    assert (shelf.folder / "samples" / "0").stat().st_size == IMAGES.nbytes
    assert torch.equal(mapped.arranged, in_memory.arranged)
    assert torch.equal(mapped.raw, in_memory.raw)
