"""From an encoded image of any size to an array of one shape: the same code for training and for serving."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from stillhouse.contract.failures import ImageTooLargeError, MalformedImageError, MixedImageShapesError
from stillhouse.contract.spec import ImageFit

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 64 * 1024 * 1024
FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MODES: Final = {1: "L", 3: "RGB"}
_GREY: Final = frozenset({"1", "L", "LA"})
_COLOUR: Final = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
# Everything that Pillow raises on bytes that are not a sound image.
_ERRORS: Final = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    struct.error, zlib.error,
)


def open_image(source: bytes | str | Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The whole image, upright as its EXIF data say. Raises MalformedImageError or ImageTooLargeError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageTooLargeError(
                    f"it has {image.width:,} x {image.height:,} pixels; at most {MAX_PIXELS:,} are decoded"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(str(error)) from error
    except UnidentifiedImageError as error:
        raise MalformedImageError(f"it is no image in {', '.join(formats[:-1])} or {formats[-1]}") from error
    except FileNotFoundError:
        raise
    except _ERRORS as error:
        raise MalformedImageError(f"it is cut short or damaged: {error}") from error


def fit_image(image: Image.Image, fit: ImageFit) -> Pixels:
    """Bytes (height, width, channels) of the image: in the fit's size and channels, or its own where the fit is open.

    Raises MalformedImageError for pixels of more than 8 bits, MixedImageShapesError for a size that is not to be
    changed.
    """
    flat = _flatten(image, fit.channels or channels_of(image))
    if fit.size is not None:
        flat = _resize(flat, height=fit.size[0], width=fit.size[1], how=fit.resize)
    return np.atleast_3d(np.asarray(flat, np.uint8))


def as_image(pixels: npt.NDArray[Any]) -> Image.Image:
    """An image of bytes (height, width) or (height, width, channels). Raises MalformedImageError for anything else."""
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or 0 in pixels.shape:
        raise MalformedImageError(
            f"an image is uint8 of shape (height, width) or (height, width, channels), not {pixels.dtype} of shape "
            f"{pixels.shape}"
        )
    try:
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))
    except (TypeError, ValueError) as error:
        raise MalformedImageError(f"an image has 1, 3 or 4 channels, not {pixels.shape[-1]}") from error


def channels_of(image: Image.Image) -> int:
    """1 of a grey image, 3 of any other. Raises MalformedImageError for pixels of more than 8 bits."""
    if image.mode not in _GREY | _COLOUR:
        raise MalformedImageError(f"its pixels are of Pillow's mode {image.mode}; 8 bits per channel are read")
    return 1 if image.mode in _GREY else 3


def _flatten(image: Image.Image, channels: int) -> Image.Image:
    """In grey or colour, without transparency."""
    channels_of(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert(_MODES[channels])


def _resize(image: Image.Image, *, height: int, width: int, how: str) -> Image.Image:
    if image.size == (width, height):
        return image
    match how:
        case "stretch":
            return image.resize((width, height), Image.Resampling.BILINEAR)
        case "shorter_side_crop":
            return image.resize((width, height), Image.Resampling.BILINEAR, box=_middle(image, height / width))
        case "pad":
            return _pad(image, height, width)
        case _:
            raise MixedImageShapesError(f"it is {image.height} x {image.width} instead of {height} x {width}")


def _middle(image: Image.Image, ratio: float) -> tuple[float, float, float, float]:
    """The largest box of these proportions (height / width) in the middle: left, upper, right, lower."""
    width = min(float(image.width), image.height / ratio)
    height = min(float(image.height), image.width * ratio)
    left, upper = (image.width - width) / 2, (image.height - height) / 2
    return left, upper, left + width, upper + height


def _pad(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(
        image.resize(inner, Image.Resampling.BILINEAR), ((width - inner[0]) // 2, (height - inner[1]) // 2)
    )
    return canvas
