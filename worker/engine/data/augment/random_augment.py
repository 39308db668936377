"""RandAugment: a few operations of one strength, drawn for each image. Values are those of `colour`."""

from collections.abc import Callable
from functools import lru_cache
from math import cos, radians, sin

import torch
from torch import Tensor

from worker.engine.data.augment.colour import Limits, brighten, change_contrast, from_black, saturate, to_raw
from worker.engine.data.augment.geometry import warp

# The largest strengths, as torchvision has them.
_SHEAR = 0.3  # pixels along one axis per pixel along the other
_TRANSLATION = 150 / 331  # of a side
_DEGREES = 30.0
_FACTOR = 0.9  # of brightness, contrast, saturation and sharpness, from 1 to either side
_POSTERIZED_BITS = 4  # of 8
_LEVELS = 256


def random_augment(images: Tensor, draws: Tensor, limits: Limits, *, num_ops: int, magnitude: float) -> Tensor:
    """With `num_ops` operations, one after the other; float32. Draws are (NUM_DRAWS, B)."""
    values = images.to(torch.float32, copy=True)
    for numbers in draws[:num_ops]:
        _apply_one(values, numbers, limits, magnitude)
    return values


def _apply_one(values: Tensor, draws: Tensor, limits: Limits, magnitude: float) -> None:
    """One operation on each image, in place; images that drew the same one go through it together."""
    kinds, signs = draws % NUM_OPERATIONS, (draws >> 32) & 1
    _, *groups = kinds.argsort().split(torch.bincount(kinds, minlength=NUM_OPERATIONS).tolist())
    moved = torch.cat(groups[:_NUM_MOVES])
    if len(moved):
        table = _move_table(magnitude, values.shape[2], values.shape[3], values.device)
        matrices = table[signs[moved], kinds[moved] - 1]
        values.index_copy_(0, moved, warp(values.index_select(0, moved), matrices))
    for change, places in zip(_CHANGES, groups[_NUM_MOVES:], strict=True):
        if len(places):
            some = from_black(values.index_select(0, places), limits)
            change(some, (2 * signs[places] - 1) * magnitude, limits.span)
            values.index_copy_(0, places, to_raw(some, limits))


@lru_cache(maxsize=64)
def _move_table(magnitude: float, height: int, width: int, device: torch.device) -> Tensor:
    """What `warp` takes for each move to either side (2, _NUM_MOVES, 2, 3)."""
    tables = [_moves(strength, height, width) for strength in (-magnitude, magnitude)]
    return torch.tensor(tables, device=device).view(2, _NUM_MOVES, 2, 3)


def _moves(strength: float, height: int, width: int) -> list[list[float]]:
    shear, angle = _SHEAR * strength, radians(_DEGREES * strength)
    return [
        [1, shear, 0, 0, 1, 0],
        [1, 0, 0, shear, 1, 0],
        [1, 0, _TRANSLATION * strength * width, 0, 1, 0],
        [1, 0, 0, 0, 1, _TRANSLATION * strength * height],
        [cos(angle), -sin(angle), 0, sin(angle), cos(angle), 0],
    ]


# Each changes values in place, by strengths (B,) that are all of one size and have a sign.


def _brighten(values: Tensor, strengths: Tensor, span: float) -> None:
    brighten(values, 1 + _FACTOR * strengths, span)


def _change_contrast(values: Tensor, strengths: Tensor, span: float) -> None:
    change_contrast(values, 1 + _FACTOR * strengths, span)


def _saturate(values: Tensor, strengths: Tensor, span: float) -> None:
    saturate(values, 1 + _FACTOR * strengths, span)


def _sharpen(values: Tensor, strengths: Tensor, span: float) -> None:
    """Multiply the distance to the smoothed image; an image's outermost pixels stay as they are."""
    factors = (1 + _FACTOR * strengths)[:, None, None, None]
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = values[:, :, 1:-1, 1:-1]
    smooth = (around + 4 * inner) / 13  # the kernel is 1 around and 5 in the middle
    inner.mul_(factors).add_((1 - factors) * smooth).clamp_(0, span)


def _posterize(values: Tensor, strengths: Tensor, span: float) -> None:
    """Round down to fewer levels, as if the lowest bits of bytes were cleared."""
    bits = (strengths.abs() * _POSTERIZED_BITS).round().long()
    step = (torch.ones_like(bits) << bits)[:, None, None, None] * (span / (_LEVELS - 1))
    torch.mul(values.div_(step).floor_(), step, out=values)


def _solarize(values: Tensor, strengths: Tensor, span: float) -> None:
    """Invert what is bright."""
    threshold = (1 - strengths.abs()) * span
    inverted = (values >= threshold[:, None, None, None]).float()
    values.add_(inverted * (span - 2 * values))


def _stretch_contrast(values: Tensor, strengths: Tensor, span: float) -> None:
    """Let each channel reach from the darkest to the brightest; one of a single value stays as it is."""
    del strengths
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    flat = (high == low).float()
    values.sub_(low * (1 - flat)).mul_(span / (high - low + flat * span))


def _equalize(values: Tensor, strengths: Tensor, span: float) -> None:
    """Spread each channel's values evenly, on 256 levels; one of (almost) a single value stays as it is."""
    del strengths
    unit = span / (_LEVELS - 1)
    levels = (values / unit).round_().clamp_(0, _LEVELS - 1).long().flatten(2)
    counts = levels.new_zeros(*levels.shape[:2], _LEVELS).scatter_add_(2, levels, torch.ones_like(levels))
    of_brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = torch.div(levels.shape[2] - of_brightest, _LEVELS - 1, rounding_mode="floor")
    below = counts.cumsum(2) - counts
    spread = torch.div(below + torch.div(step, 2, rounding_mode="floor"), step.clamp(min=1), rounding_mode="floor")
    table = torch.where(step > 0, spread.clamp(max=_LEVELS - 1), torch.arange(_LEVELS, device=values.device))
    values.copy_(table.gather(2, levels).view_as(values)).mul_(unit)


_NUM_MOVES = 5
_CHANGES: tuple[Callable[[Tensor, Tensor, float], None], ...] = (
    _brighten, _change_contrast, _saturate, _sharpen, _posterize, _solarize, _stretch_contrast, _equalize,
)
NUM_OPERATIONS = 1 + _NUM_MOVES + len(_CHANGES)  # the first is none at all
