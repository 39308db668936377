"""Features of layers as vectors, as directions, and at one size.

Vectors are (N, C), tokens (N, L, C) and maps (N, C, H, W): N items, C channels, L positions of tokens, H x W of maps.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

TOKENS_AXES = 3  # the batch's included
# A vector shorter than this has no direction.
SHORTEST = 1e-12


def channel_axis(features: Tensor) -> int:
    """The axis of the channels, behind the positions of tokens."""
    return 2 if features.ndim == TOKENS_AXES else 1


def pooled(features: Tensor) -> Tensor:
    """One vector (N, C) per item: the mean over positions."""
    if features.ndim == TOKENS_AXES:
        return features.mean(1)
    return features.flatten(2).mean(2) if features.ndim > TOKENS_AXES else features


def channels_first(features: Tensor) -> Tensor:
    """Tokens or maps as (N, C, positions)."""
    return features.transpose(1, 2) if features.ndim == TOKENS_AXES else features.flatten(2)


def at_one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller of their sizes, axis by axis, by average pooling; they must have the same axes."""
    size = tuple(min(pair) for pair in zip(_size(student), _size(teacher), strict=True))
    return _resized(student, size), _resized(teacher, size)


def directions(vectors: Tensor, dim: int, *, slack: float = 0.0) -> Tensor:
    """The vectors along `dim` at length 1; with `slack`, divided by their length and that.

    One without a direction, such as where all channels are dead, stays 0 and passes its gradient on as it is; divided
    by a small number instead, the gradient would drown every other.
    """
    squares = vectors.square().sum(dim, keepdim=True)
    return vectors / (torch.where(squares > SHORTEST**2, squares, 1.0).sqrt() + slack)


def mean_over_pairs(values: Iterable[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()


def nothing_to_compare(student: Tensor) -> Tensor:
    """What a relational term says of fewer than 2 items: 0, with a gradient of 0."""
    return student.sum() * 0.0


def _size(features: Tensor) -> tuple[int, ...]:
    return tuple(features.shape[1:2] if features.ndim == TOKENS_AXES else features.shape[2:])


def _resized(features: Tensor, size: tuple[int, ...]) -> Tensor:
    if _size(features) == size:
        return features
    if features.ndim == TOKENS_AXES:
        return functional.adaptive_avg_pool1d(features.transpose(1, 2), size[0]).transpose(1, 2)
    return functional.adaptive_avg_pool2d(features, (size[0], size[1]))
