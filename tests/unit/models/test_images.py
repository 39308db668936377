import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from stillhouse.contract.failures import ImageTooLargeError, MalformedImageError, MixedImageShapesError
from stillhouse.contract.spec import ImageFit
from stillhouse.models import images
from stillhouse.models.images import as_image, fit_image, open_image
from tests.fixtures.archives import encoded, noise

Resize = Literal["none", "stretch", "shorter_side_crop", "pad"]


def fitted(pixels: npt.NDArray[np.uint8], **fit: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - fields of the fit
    return fit_image(Image.fromarray(pixels), ImageFit(**fit))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_what_is_encoded_without_loss_comes_back(form: str, shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    image = open_image(encoded(pixels, form, **({"lossless": True} if form == "WEBP" else {})))
    expected = pixels if form == "PNG" or len(shape) > 2 else np.repeat(pixels[..., None], 3, axis=2)
    assert np.array_equal(fit_image(image, ImageFit()), np.atleast_3d(expected))


@pytest.mark.parametrize("how", ["none", "stretch", "shorter_side_crop", "pad"])
def test_an_image_of_the_right_size_keeps_its_bits(how: Resize) -> None:
    pixels = noise(6, 4, 3)
    assert np.array_equal(fitted(pixels, size=[6, 4], resize=how, channels=3), pixels)


def triangle(pixels: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.float64]:
    """Rows shrunk by a whole factor with a triangle twice as wide, renormalised at the edges: what antialiasing is."""
    count = len(pixels) // factor
    centres = (np.arange(count) + 0.5) * factor
    weights = np.maximum(0, 1 - np.abs(np.arange(len(pixels)) + 0.5 - centres[:, None]) / factor)
    shrunk: npt.NDArray[np.float64] = (weights / weights.sum(axis=1, keepdims=True)) @ pixels
    return shrunk


def test_shrinking_is_antialiased() -> None:
    pixels = noise(24, 24)
    expected = triangle(triangle(pixels.astype(float), 3).T, 3).T
    found = fitted(pixels, size=[8, 8], resize="stretch")[..., 0]
    assert np.abs(found - expected).max() <= 1  # two roundings
    assert np.abs(pixels[1::3, 1::3] - expected).max() > 50  # what picking pixels would give


def test_stretching_ignores_proportions() -> None:
    columns = np.tile(np.arange(0, 200, 50, dtype=np.uint8), (2, 1))
    assert fitted(columns, size=[2, 8], resize="stretch")[0, :, 0].tolist() == [0, 13, 38, 63, 88, 113, 138, 150]


@pytest.mark.parametrize("transpose", [False, True])
def test_cropping_keeps_the_middle_of_the_longer_side(transpose: bool) -> None:
    wide = noise(4, 10)
    middle = wide[:, 3:7]
    if transpose:
        wide, middle = wide.T.copy(), middle.T.copy()
    assert np.array_equal(fitted(wide, size=[4, 4], resize="shorter_side_crop")[..., 0], middle)


def test_shrinking_and_then_cropping_are_one_step() -> None:
    pixels = noise(12, 30)
    expected = triangle(triangle(pixels.astype(float), 3).T, 3).T[:, 3:7]
    found = fitted(pixels, size=[4, 4], resize="shorter_side_crop")[..., 0].astype(float)
    assert np.abs(found - expected).max() <= 1


def test_padding_keeps_all_of_it_in_the_middle() -> None:
    tall = np.full((8, 4), 255, np.uint8)
    found = fitted(tall, size=[4, 4], resize="pad")[..., 0]
    assert found.tolist() == [[0, 255, 255, 0]] * 4
    line = fitted(np.full((1, 1000), 255, np.uint8), size=[5, 5], resize="pad")[..., 0]
    assert line.tolist() == [[0] * 5] * 2 + [[255] * 5] + [[0] * 5] * 2


def test_another_size_is_refused_where_nothing_is_to_be_done_about_it() -> None:
    with pytest.raises(MixedImageShapesError, match="5 x 7 instead of 7 x 5"):
        fitted(noise(5, 7), size=[7, 5], resize="none")


def test_channels_are_those_asked_for() -> None:
    colour = np.zeros((1, 3, 3), np.uint8)
    colour[0] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert fitted(colour, channels=1)[0, :, 0].tolist() == [76, 150, 29]  # ITU-R 601: .299, .587, .114
    assert fitted(np.array([[9]], np.uint8), channels=3).tolist() == [[[9, 9, 9]]]
    assert fitted(np.array([[[1, 2, 3, 0]]], np.uint8)).tolist() == [[[1, 2, 3]]]  # transparent


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    content = io.BytesIO()
    palette.save(content, "PNG", transparency=bytes([0, 128]))
    assert fit_image(open_image(content.getvalue()), ImageFit()).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    pixels = noise(4, 6)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", exif=exif)
    assert np.array_equal(fit_image(open_image(content.getvalue()), ImageFit())[..., 0], np.rot90(pixels, -1))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_a_cut_image_is_told(form: str, share: float) -> None:
    content = encoded(noise(40, 40, 3), form)
    with pytest.raises(MalformedImageError, match=r"cut short or damaged|no image in"):
        open_image(content[:int(len(content) * share)])


def test_whatever_the_bytes_are_only_the_two_failures_come_of_them() -> None:
    random = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "WEBP"):
        content = np.frombuffer(encoded(noise(16, 16, 3), form), np.uint8)
        for _ in range(200):
            broken = content.copy()
            places = random.integers(8, len(content), 6)
            broken[places] = random.integers(0, 256, 6)
            with suppress(MalformedImageError, ImageTooLargeError):
                fit_image(open_image(broken.tobytes()), ImageFit(size=[8, 8]))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims any size, and that has no pixels."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ImageTooLargeError):
        open_image(png_claiming(side, side))


def test_the_limit_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 12)
    open_image(encoded(noise(3, 4)))
    with pytest.raises(ImageTooLargeError, match="13 x 1 pixels; at most 12"):
        open_image(encoded(noise(1, 13)))


def test_other_formats_and_deeper_pixels_are_refused() -> None:
    with pytest.raises(MalformedImageError, match="PNG, JPEG or WEBP"):
        open_image(encoded(noise(3, 3), "BMP"))
    deep = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(deep, "PNG")
    with pytest.raises(MalformedImageError, match="8 bits"):
        fit_image(open_image(deep.getvalue()), ImageFit())


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_an_array_is_an_image(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    assert np.array_equal(fit_image(as_image(pixels), ImageFit()), np.atleast_3d(pixels))


@pytest.mark.parametrize("pixels", [noise(4), noise(4, 5, 7), noise(0, 3), np.zeros((4, 5), np.float32)])
def test_an_array_that_is_no_image_is_refused(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(MalformedImageError):
        as_image(pixels)
