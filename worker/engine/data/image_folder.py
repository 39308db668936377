"""Images in folders named by class, in a tar or zip archive. Read member by member; nothing is unpacked to disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stillhouse.contract.archives import Member, below, is_image, walk
from stillhouse.contract.failures import UnknownFolderError, UnusableLabelsError
from stillhouse.contract.spec import ImagesSplit
from worker.engine.data.decode import MAX_IMAGE_BYTES, Decoder
from worker.engine.data.raw import RawLabels, RawSplit


def read_images(split: ImagesSplit, path: Path, decoder: Decoder, param: str) -> RawSplit:
    """The split's images, in the order of the archive. Raises what fits when the archive or an image is unusable."""
    names = [name for _, name in _members(path, split.folder)]
    if not names:
        raise UnknownFolderError(
            f"the archive has no images below {split.folder or 'its root'}", param=f"{param}/folder"
        )
    labels = _labels(names, param) if split.is_labelled else None
    inputs = decoder.decode(
        ((f"`{member.name}`", member.read(MAX_IMAGE_BYTES)) for member, _ in _members(path, split.folder)), len(names)
    )
    return RawSplit(inputs, "uint8", labels, image=decoder.fit)


def _members(path: Path, folder: str | None) -> Iterator[tuple[Member, str]]:
    """Each image below the folder, and its name there."""
    with path.open("rb") as file:
        for member in walk(file, path.stat().st_size):
            name = below(member.name, folder)
            if name is not None and is_image(name):
                yield member, name


def _labels(names: list[str], param: str) -> RawLabels:
    places: dict[str, int] = {}
    values = np.empty(len(names), np.int64)
    for number, name in enumerate(names):
        class_name, slash, _ = name.partition("/")
        if not slash:
            raise UnusableLabelsError(
                f"`{name}` lies in no folder that names its class; move it into one, or set labels to null",
                param=f"{param}/labels",
            )
        values[number] = places.setdefault(class_name, len(places))
    return RawLabels(values, names=tuple(places))
