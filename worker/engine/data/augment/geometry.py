"""Transforms that move pixels. Images are (B, channels, height, width), raw; draws (NUM_DRAWS, B)."""

from functools import lru_cache
from math import log, radians
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.data.augment.draws import between, chance, look_up, tabulate, uniform


def shift(images: Tensor, draws: Tensor, *, pixels: int) -> Tensor:
    """Moved by whole pixels; what comes in is 0."""
    return crop(images, draws, padding=pixels, padding_mode="constant")


def crop(images: Tensor, draws: Tensor, *, padding: int, padding_mode: Literal["constant", "reflect"]) -> Tensor:
    """A window of the image's own size out of the padded image."""
    choices = 2 * padding + 1
    down, right = draws[0] % choices, torch.div(draws[0], choices, rounding_mode="floor") % choices
    padded = functional.pad(images, (padding,) * 4, mode=padding_mode)
    return _windows(padded, (images.shape[2], images.shape[3]), down, right)


def _windows(padded: Tensor, size: tuple[int, int], down: Tensor, right: Tensor) -> Tensor:
    """Of each image (B, C, H, W) the window of this size that begins `down` and `right` (B,) of the corner.

    Any window is a strided view of the one buffer, so that a single gather copies them all row by row.
    """
    count, channels, height, width = padded.shape
    plane = height * width
    reach = (channels - 1) * plane + (size[0] - 1) * width + size[1]
    views = padded.as_strided((padded.numel() - reach + 1, channels, *size), (1, plane, width, 1))
    corners = torch.arange(count, device=padded.device) * (channels * plane)
    return views.index_select(0, corners + down * width + right)


def flip(images: Tensor, draws: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Mirrored along each of the axes with probability 1/2."""
    if horizontal:
        images = _mirror(images, draws[0] & 1, axis=3)
    if vertical:
        images = _mirror(images, draws[1] & 1, axis=2)
    return images


def _mirror(images: Tensor, mirrored: Tensor, *, axis: int) -> Tensor:
    both = torch.cat([images, images.flip(axis)])
    return both.index_select(0, torch.arange(len(images), device=images.device) + mirrored * len(images))


def resized_crop(
    images: Tensor, draws: Tensor, *, min_area: float, max_area: float, min_ratio: float, max_ratio: float
) -> Tensor:
    """A window of random area, shape and place, enlarged to the image's size; float32."""
    height, width = images.shape[2:]
    area = between(min_area, max_area, draws[0])
    ratio = look_up(_ratios(min_ratio, max_ratio, draws.device), draws[1])
    across, along = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    # From the image's centre to the window's.
    right = (uniform(draws[2]) - 0.5) * (1 - across) * width
    down = (uniform(draws[3]) - 0.5) * (1 - along) * height
    nothing = torch.zeros_like(area)
    return warp(images, _matrices(across, nothing, right, nothing, along, down), outside="border")


@lru_cache(maxsize=64)
def _ratios(least: float, most: float, device: torch.device) -> Tensor:
    """Evenly spread by their logarithm, float32."""
    return tabulate(lambda parts: torch.exp(log(least) + parts * log(most / least)).float(), device)


def rotate(images: Tensor, draws: Tensor, *, degrees: float) -> Tensor:
    """Turned about the centre by up to so many degrees to either side; float32."""
    cosine, sine = look_up(_turns(degrees, draws.device), draws[0]).unbind(1)
    nothing = torch.zeros_like(cosine)
    return warp(images, _matrices(cosine, -sine, nothing, sine, cosine, nothing))


@lru_cache(maxsize=64)
def _turns(degrees: float, device: torch.device) -> Tensor:
    """Cosine and sine of angles from -degrees to degrees (NUM_STEPS, 2), float32."""
    return tabulate(lambda parts: _cosine_sine((2 * parts - 1) * radians(degrees)), device)


def _cosine_sine(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1).float()


@lru_cache(maxsize=64)
def _leans(degrees: float, device: torch.device) -> Tensor:
    """Tangents of angles from -degrees to degrees, float32."""
    return tabulate(lambda parts: torch.tan((2 * parts - 1) * radians(degrees)).float(), device)


def affine(
    images: Tensor,
    draws: Tensor,
    *,
    degrees: float,
    translation: float,
    min_scale: float,
    max_scale: float,
    shear: float,
) -> Tensor:
    """Sheared, scaled, turned and moved, in this order; float32."""
    height, width = images.shape[2:]
    cosine, sine = look_up(_turns(degrees, draws.device), draws[0]).unbind(1)
    lean = look_up(_leans(shear, draws.device), draws[1])
    scale = between(min_scale, max_scale, draws[2])
    right, down = between(-translation, translation, draws[3]) * width, between(-translation, translation, draws[4])
    down = down * height
    # The way back, from where a pixel lands to where it came from.
    xx, xy = (cosine - lean * sine) / scale, (-sine - lean * cosine) / scale
    yx, yy = sine / scale, cosine / scale
    return warp(images, _matrices(xx, xy, -(xx * right + xy * down), yx, yy, -(yx * right + yy * down)))


def _matrices(xx: Tensor, xy: Tensor, x: Tensor, yx: Tensor, yy: Tensor, y: Tensor) -> Tensor:
    """(B, 2, 3) from its six numbers (B,)."""
    return torch.stack([xx, xy, x, yx, yy, y], 1).view(-1, 2, 3)


def warp(images: Tensor, matrices: Tensor, *, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Images whose pixel at (x, y) is what the image has at matrix @ (x, y, 1), bilinearly; float32.

    Matrices are (B, 2, 3), coordinates in pixels right and down of the centre. Outside of an image there are zeros, or
    what its border has.
    """
    count, _, height, width = images.shape
    grid = torch.empty(count, height, width, 2, device=images.device)
    columns, rows = (torch.arange(size, device=images.device) - (size - 1) / 2 for size in (width, height))
    for axis, size in enumerate((width, height)):
        # In grid_sample's unit, half of the side; by hand, since affine_grid's matrix product has bits of its own
        # for each size of a batch.
        factors = matrices[:, axis] * (2 / size)
        across = factors[:, 0, None] * columns
        along = factors[:, 1, None] * rows + factors[:, 2, None]
        torch.add(across[:, None, :], along[:, :, None], out=grid[..., axis])
    return functional.grid_sample(images.float(), grid, padding_mode=outside, align_corners=False)


def erasing(
    images: Tensor,
    draws: Tensor,
    *,
    probability: float,
    min_area: float,
    max_area: float,
    min_ratio: float,
    max_ratio: float,
) -> Tensor:
    """With a rectangle of zeros."""
    height, width = images.shape[2:]
    area = between(min_area, max_area, draws[1])
    ratio = look_up(_ratios(min_ratio, max_ratio, draws.device), draws[2])
    erased = chance(draws[0], probability).long()
    rows = ((area / ratio).sqrt() * height).round().clamp(1, height).long()
    columns = ((area * ratio).sqrt() * width).round().clamp(1, width).long()
    top, left = draws[3] % (height - rows + 1), draws[4] % (width - columns + 1)
    inside = boxes((height, width), (top, top + rows * erased), (left, left + columns))
    return images * (1 - inside).to(images.dtype)


def boxes(size: tuple[int, int], rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Uint8 (B, 1, *size): 1 from the first row and column (B,) up to but without the last, 0 elsewhere."""
    down, across = (
        ((places >= first[:, None]) & (places < last[:, None])).to(torch.uint8)
        for places, (first, last) in (
            (torch.arange(size[0], device=rows[0].device), rows),
            (torch.arange(size[1], device=rows[0].device), columns),
        )
    )
    return (down[:, :, None] * across[:, None, :])[:, None]
