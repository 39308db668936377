"""Lists the images of an archive by folder, without decoding any."""

from collections import Counter
from typing import BinaryIO

from app.artifacts.inspection.facts import ImagesFacts
from stillhouse.contract.archives import is_image, walk
from stillhouse.contract.failures import EmptyDataError

MAX_LISTED_FOLDERS = 10_000


def inspect_images(file: BinaryIO, size: int) -> ImagesFacts:
    """Facts of the folders. Raises MalformedArchiveError, UnsafeArchiveError, ArchiveTooLargeError, EmptyDataError."""
    folders = Counter(member.name.rpartition("/")[0] for member in walk(file, size) if is_image(member.name))
    if not folders:
        raise EmptyDataError("The archive has no images in PNG, JPEG or WebP.")
    listed = dict(sorted(folders.items())) if len(folders) <= MAX_LISTED_FOLDERS else None
    return ImagesFacts(num_images=folders.total(), folders=listed)
