"""Random changes to images. A draw is a function of (augmentation seed, sample, epoch, place in the list) only."""

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import Augmentation, Flip, Shift, Transform
from worker.engine.seeds import derive_seed

# SplitMix64's constants, as signed 64-bit numbers: int64 multiplication wraps just like uint64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def augment(images: Tensor, ids: Tensor, augmentation: Augmentation, *, epoch: int) -> Tensor:
    """Raw images (B, channels, height, width) of the samples `ids` (B,) as the epoch shows them; a new tensor."""
    for place, transform in enumerate(augmentation.transforms):
        draws = draw(ids, derive_seed(augmentation.seed, "augment", epoch, place))
        images = _apply(transform, images, draws)
    return images


def draw(ids: Tensor, key: int) -> Tensor:
    """62 random bits, int64, for each sample id: SplitMix64 of a counter, so that the order does not matter."""
    mixed = ids * _GOLDEN + key
    mixed = (mixed ^ _shift_right(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift_right(mixed, 27)) * _SECOND
    return _shift_right(mixed ^ _shift_right(mixed, 31), 2)


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    """Logical, where int64's own shift keeps the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _apply(transform: Transform, images: Tensor, draws: Tensor) -> Tensor:
    if isinstance(transform, Shift):
        return _shift(images, draws, transform)
    if isinstance(transform, Flip):
        return torch.where((draws & 1).bool()[:, None, None, None], images.flip(3), images)
    raise AssertionError(transform)


def _shift(images: Tensor, draws: Tensor, shift: Shift) -> Tensor:
    pad, choices = shift.pixels, 2 * shift.pixels + 1
    height, width = images.shape[2:]
    windows = functional.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    down, right = draws % choices, torch.div(draws, choices, rounding_mode="floor") % choices
    # One gather: every window is a view of the padded image.
    return windows[torch.arange(len(images), device=images.device), :, down, right]
