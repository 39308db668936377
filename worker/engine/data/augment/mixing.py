"""Blending of two samples: which, how much, and what becomes of images and labels."""

from collections.abc import Sequence
from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.contract.spec import Cutmix, Mixup
from worker.engine.data.augment.draws import chance, look_up, tabulate
from worker.engine.data.augment.geometry import boxes


class Blend(NamedTuple):
    """How much of a sample stays, of each of B samples."""

    weights: Tensor  # (B, 1, H, W) or (B, 1, 1, 1): of each pixel; uint8 where it is 0 or 1 everywhere, else float32
    shares: Tensor  # (B,) float32: of the whole image


def draw_partners(draws: Tensor, partners: Tensor) -> Tensor:
    """One of the ids `partners` for each sample; the sample itself may be drawn. Draws are (B, places, NUM_DRAWS)."""
    return partners.index_select(0, draws[:, 0, 1] % len(partners))


def draw_blend(draws: Tensor, mixing: Sequence[Mixup | Cutmix], size: tuple[int, int]) -> Blend:
    """What the transforms, mixup, cutmix or both, do to images of this size. Draws are (B, places, NUM_DRAWS)."""
    blends = [
        _blend_all(numbers, transform) if isinstance(transform, Mixup) else _blend_box(numbers, transform, size)
        for numbers, transform in zip(draws.permute(1, 2, 0), mixing, strict=True)
    ]
    if len(blends) == 1:
        return blends[0]
    first, second = blends
    is_first = (draws[:, 0, 0] & 1).float()
    chosen, other = is_first[:, None, None, None], (1 - is_first)[:, None, None, None]
    return Blend(
        first.weights * chosen + second.weights * other, first.shares * is_first + second.shares * (1 - is_first)
    )


def blend(images: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """Images (B, C, H, W) of a blend; of the images' type where the weights are 0 or 1 everywhere, else float32."""
    if weights.dtype == torch.uint8:
        weights = weights.to(images.dtype)
    else:
        images, others = images.float(), others.float()
    return images * weights + others * (1 - weights)


def mixed_labels(labels: Tensor, partners_labels: Tensor, shares: Tensor, num_classes: int) -> Tensor:
    """Shares of the classes (B, num_classes), float32, from the labels of the samples and of their partners.

    Labels are classes (B,) or rows of numbers (B, num_classes). A class below 0, which is none, counts for nothing: its
    row sums to less than 1.
    """
    own, other = (_rows(given, num_classes) for given in (labels, partners_labels))
    return own * shares[:, None] + other * (1 - shares)[:, None]


def _rows(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as rows of float32; a row of zeros for none."""
    if labels.ndim > 1:
        return labels.float()
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def _blend_all(draws: Tensor, mixup: Mixup) -> Blend:
    shares = _draw_shares(draws, mixup)
    return Blend(shares[:, None, None, None], shares)


def _blend_box(draws: Tensor, cutmix: Cutmix, size: tuple[int, int]) -> Blend:
    """The box has its centre on any pixel and ends at the image's edge, as in the paper: shares are what is left."""
    side = (1 - _draw_shares(draws, cutmix)).sqrt()
    spans = [_span(draws[5 + axis], side, length) for axis, length in enumerate(size)]
    (top, bottom), (left, right) = spans
    cut = (bottom - top) * (right - left)
    pixels = size[0] * size[1]
    return Blend(1 - boxes(size, *spans), (pixels - cut).float() / pixels)


def _span(draws: Tensor, side: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First and last place of the box along one axis, cut to the image."""
    extent = (side * length).round().long()
    first = draws % length - torch.div(extent, 2, rounding_mode="floor")
    return first.clamp(min=0), (first + extent).clamp(max=length)


def _draw_shares(draws: Tensor, transform: Mixup | Cutmix) -> Tensor:
    """What each sample keeps (B,), float32: all of it where it is not mixed."""
    mixed = chance(draws[2], transform.probability)
    return 1 - mixed + mixed * symmetric_beta(transform.alpha, draws[3], draws[4])


def symmetric_beta(alpha: float, radii: Tensor, angles: Tensor) -> Tensor:
    """Draws of Beta(alpha, alpha), float32, from two draws each, without rejection.

    Student's t with 2 alpha degrees of freedom is sqrt(2 alpha (U**(-1/alpha) - 1)) cos(2 pi V) (Bailey: Polar
    generation of random variates with the t-distribution, 1994), and (1 + t / sqrt(2 alpha + t**2)) / 2 is
    Beta(alpha, alpha). Exact but for U and V, which take NUM_STEPS values each.
    """
    cosines = look_up(_cosines(angles.device), angles)
    ratios = look_up(_excesses(alpha, radii.device), radii) * cosines * cosines  # t**2 / (2 alpha)
    return ((1 + cosines.sign() / (1 / ratios + 1).sqrt()) / 2).float()


@lru_cache(maxsize=64)
def _excesses(alpha: float, device: torch.device) -> Tensor:
    """U**(-1/alpha) - 1, float64."""
    return tabulate(lambda parts: torch.expm1(-parts.log() / alpha), device)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """Of all angles, float64; none of them is 0."""
    return tabulate(lambda parts: (2 * pi * parts).cos(), device)
