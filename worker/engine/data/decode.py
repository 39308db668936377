"""Encoded images into one array, on several threads."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from PIL import Image

from stillhouse.contract.failures import MixedImageShapesError, StillhouseError
from stillhouse.contract.spec import ImageFit
from stillhouse.models.images import Pixels, channels_of, fit_image, open_image
from worker.engine.data.room import Array, Room

MAX_IMAGE_BYTES = 64 * 1024**2
# Encoded images that wait for their turn, per thread.
_AHEAD = 4


@dataclass(frozen=True)
class _First:
    """The image that the others must be like, where the spec leaves size or channels open."""

    name: str
    size: tuple[int, int]  # width, height
    channels: int


class Decoder:
    """Decodes every split alike. What the spec leaves open is settled by the first image of the first split."""

    def __init__(self, asked: ImageFit, room: Room) -> None:
        self.fit = asked  # nothing is left open once an image was decoded
        self._asked = asked
        self._room = room
        self._first: _First | None = None

    def decode(self, encoded: Iterable[tuple[str, bytes]], count: int) -> Array:
        """Images (N, channels, height, width) of bytes, from `count` pairs of name and content.

        Raises MalformedImageError, ImageTooLargeError or MixedImageShapesError, each with the image's name.
        """
        rest = iter(encoded)
        name, content = next(rest)
        self._settle(name, content)
        assert self.fit.size is not None  # noqa: S101 - just settled
        images = self._room.array("the decoded images", (count, self.fit.channels or 0, *self.fit.size), "uint8")
        decoded = _in_order(self, itertools.chain([(name, content)], rest))
        for number, pixels in enumerate(itertools.islice(decoded, count)):
            images[number] = pixels.transpose(2, 0, 1)
        return images

    def one(self, name: str, content: bytes) -> Pixels:
        """One image (height, width, channels)."""
        try:
            image = open_image(content)
            self._check(image)
            return fit_image(image, self.fit)
        except StillhouseError as error:
            raise type(error)(f"{name}: {error.message}", param=error.param) from error

    def _settle(self, name: str, content: bytes) -> None:
        if self._first is not None:
            return
        try:
            image = open_image(content)
            self._first = _First(name, image.size, channels_of(image))
        except StillhouseError as error:
            raise type(error)(f"{name}: {error.message}") from error
        self.fit = ImageFit(
            size=self._asked.size or [image.height, image.width], resize=self._asked.resize,
            channels=self._asked.channels or (1 if self._first.channels == 1 else 3),
        )

    def _check(self, image: Image.Image) -> None:
        """Raise MixedImageShapesError where nothing says what becomes of an image unlike the first."""
        first = self._first
        assert first is not None  # noqa: S101 - settled before
        if self._asked.size is None and image.size != first.size:
            raise MixedImageShapesError(
                f"it is {image.height} x {image.width} pixels, and {first.name} is {first.size[1]} x {first.size[0]}; "
                "set data.image.size to [height, width]", param="/data/image/size",
            )
        if self._asked.channels is None and channels_of(image) != first.channels:
            raise MixedImageShapesError(
                f"it has {channels_of(image)} channels, and {first.name} has {first.channels}; set "
                "data.image.channels to 1 or 3", param="/data/image/channels",
            )


def _in_order(decoder: Decoder, encoded: Iterator[tuple[str, bytes]]) -> Iterator[Pixels]:
    """Decoded by threads (Pillow lets go of the interpreter while it works), given in order, few at a time."""
    num_threads = torch.get_num_threads()
    waiting: deque[Future[Pixels]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for name, content in encoded:
                waiting.append(pool.submit(decoder.one, name, content))
                if len(waiting) > _AHEAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
