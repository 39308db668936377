"""Transforms that change values. Images are (B, channels, height, width), raw; draws (NUM_DRAWS, B).

The operations work in place on float32 values whose range is 0 to `span`.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from worker.engine.data.augment.draws import between, draw, look_up, tabulate
from worker.engine.seeds import derive_seed

_NUM_CHANNELS = 3  # red, green, blue
# ITU-R BT.601, as in a picture's conversion to grey everywhere.
_LUMA = (0.299, 0.587, 0.114)
_NUM_STARTS = 2**20
_TINY = 1e-20


class Limits(NamedTuple):
    """Darkest and brightest raw value."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """From the darkest to the brightest; 1 where they are the same, so that nothing is divided by 0."""
        return self.high - self.low or 1.0


BYTES = Limits(0.0, 255.0)


def jitter(
    images: Tensor,
    draws: Tensor,
    limits: Limits,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """With other brightness, contrast, saturation and hue, in this order, each kept within the limits; float32."""
    values = from_black(images, limits)
    if brightness:
        brighten(values, between(1 - brightness, 1 + brightness, draws[0]), limits.span)
    if contrast:
        change_contrast(values, between(1 - contrast, 1 + contrast, draws[1]), limits.span)
    if saturation:
        saturate(values, between(1 - saturation, 1 + saturation, draws[2]), limits.span)
    if hue:
        turn_hue(values, between(-hue, hue, draws[3]))
    return to_raw(values, limits)


def noise(images: Tensor, draws: Tensor, limits: Limits, *, std: float) -> Tensor:
    """With normal numbers added, kept within the limits; float32.

    Each image takes a random stretch of one sequence, at the price of a copy; a number of its own for every pixel would
    cost a hash of each.
    """
    values = from_black(images, limits)
    length = images[0].numel()
    stretches = _normal_numbers(length, images.device).unfold(0, length, 1)
    added = stretches.index_select(0, draws[0] % _NUM_STARTS).view_as(values)
    values.add_(added.mul_(std * limits.span)).clamp_(0, limits.span)
    return to_raw(values, limits)


@lru_cache(maxsize=4)
def _normal_numbers(length: int, device: torch.device) -> Tensor:
    """_NUM_STARTS + length - 1 numbers, float32, the same on every machine but for their last bits."""
    table = tabulate(lambda parts: torch.special.ndtri(parts).float(), device)
    key = torch.tensor(derive_seed(0, "noise"), device=device)
    return look_up(table, draw(torch.arange(_NUM_STARTS + length - 1, device=device), key))


def from_black(images: Tensor, limits: Limits) -> Tensor:
    """The images as float32 values from 0 to the span, in memory of their own."""
    values = images.to(torch.float32, copy=True)
    return values.sub_(limits.low) if limits.low else values


def to_raw(values: Tensor, limits: Limits) -> Tensor:
    """The way back; in place."""
    return values.add_(limits.low) if limits.low else values


def brighten(values: Tensor, factors: Tensor, span: float) -> None:
    """Multiply by the factors (B,)."""
    values.mul_(_wide(factors)).clamp_(0, span)


def change_contrast(values: Tensor, factors: Tensor, span: float) -> None:
    """Multiply the distance to each image's mean grey by the factors (B,)."""
    levels = grey(values).flatten(1)
    mean = sum_by_halves(levels) / levels.shape[1]
    values.mul_(_wide(factors)).add_(_wide((1 - factors) * mean)).clamp_(0, span)


def saturate(values: Tensor, factors: Tensor, span: float) -> None:
    """Multiply the distance to each pixel's grey by the factors (B,). What has no three channels is left as it is."""
    if values.shape[1] == _NUM_CHANNELS:
        levels = grey(values).mul_(_wide(1 - factors))
        values.mul_(_wide(factors)).add_(levels).clamp_(0, span)


def turn_hue(values: Tensor, turns: Tensor) -> None:
    """Turn the colour circle by so many whole turns (B,); brightness and saturation (HSV) stay. Needs three channels.

    In HSV, a channel is V - V S min(k, 4 - k) between 0 and 1, where k is the hue in sixths of a turn plus 5 for red, 3
    for green and 1 for blue, modulo 6.
    """
    red, green, blue = values.unbind(1)
    most = values.amax(1)
    chroma = most - values.amin(1)
    is_red = (red == most).float()
    is_green = (green == most).float().mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    hue = is_red * (green - blue)
    hue += is_green * (blue - red)
    hue += is_blue * (red - green)
    hue /= chroma.clamp(min=_TINY)
    hue += is_green * 2
    hue += is_blue * 4
    hue += (turns * 6)[:, None, None]
    for channel, offset in ((red, 5), (green, 3), (blue, 1)):
        sixths = hue + offset
        sixths -= (sixths / 6).floor_().mul_(6)
        torch.minimum(sixths, 4 - sixths, out=sixths)
        torch.sub(most, sixths.clamp_(0, 1).mul_(chroma), out=channel)


def grey(values: Tensor) -> Tensor:
    """(B, 1, H, W): the brightness that eyes see in red, green and blue; of another number of channels their mean."""
    if values.shape[1] != _NUM_CHANNELS:
        return sum_by_halves(values.movedim(1, -1)).div_(values.shape[1])[:, None]
    red, green, blue = (values[:, channel:channel + 1] * weight for channel, weight in enumerate(_LUMA))
    return red.add_(green).add_(blue)


def sum_by_halves(values: Tensor) -> Tensor:
    """Sum over the last axis, always in the same order: one half is added to the other until one number is left."""
    while (length := values.shape[-1]) > 1:
        half = length // 2
        folded = values[..., :half] + values[..., half:2 * half]
        if length % 2:
            folded[..., 0] += values[..., -1]
        values = folded
    return values[..., 0]


def _wide(numbers: Tensor) -> Tensor:
    """(B,) so that it goes with images."""
    return numbers[:, None, None, None]
