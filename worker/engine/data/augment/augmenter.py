"""The list of transforms, applied to a batch."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.contract.spec import Augmentation, Cutmix, Mixup, Transform
from worker.engine.data.augment.colour import BYTES, Limits, jitter, noise
from worker.engine.data.augment.draws import draw, stream_keys
from worker.engine.data.augment.geometry import affine, crop, erasing, flip, resized_crop, rotate, shift
from worker.engine.data.augment.mixing import blend, draw_blend, draw_partners
from worker.engine.data.augment.random_augment import random_augment

# The fields of a transform's spec class but for `kind` are the keyword arguments. What moves pixels takes images and
# draws,
MOVES: Mapping[str, Callable[..., Tensor]] = {
    "shift": shift, "flip": flip, "crop": crop, "resized_crop": resized_crop, "rotate": rotate, "affine": affine,
    "erasing": erasing,
}
# what changes values takes the limits too.
CHANGES: Mapping[str, Callable[..., Tensor]] = {
    "jitter": jitter, "random_augment": random_augment, "noise": noise,
}

# On a CPU, so many values go through the whole list at once: they and what is made of them stay in the cache, and
# memory is used again. Images have the same bits for it.
_PART_VALUES = 2**20


class Augmented(NamedTuple):
    """A batch of B samples as one view shows them."""

    # (B, channels, height, width), in the scale of the raw images; of their type where all transforms only copy
    # pixels (shift, flip, crop, erasing, cutmix), else float32.
    images: Tensor
    partners: Tensor | None  # (B,) int64: ids of the samples mixed in, where the augmentation mixes
    shares: Tensor | None  # (B,) float32: how much of the sample itself is in its image


class Augmenter:
    """Shows samples of the training split changed at random, and the same again for the same view."""

    def __init__(
        self,
        augmentation: Augmentation,
        rows: Callable[[Tensor], Tensor],
        partners: Tensor,
        *,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """`rows` gives the raw images (B, channels, height, width) of ids (B,), of any type, on the device.

        `partners` are the ids of the training split, on the device and always in the same order: whom mixup and cutmix
        draw from. `limits` are the darkest and the brightest raw value of that split, for transforms that change
        values; of bytes they may be left out: 0 and 255.
        """
        self._rows, self._partners = rows, partners
        self._limits = None if limits is None else Limits(*limits)
        self._seed, self._num_places = augmentation.seed, len(augmentation.transforms)
        self._transforms = [_ready(transform) for transform in augmentation.transforms if not transform.mixes]
        self._mixing = [transform for transform in augmentation.transforms if isinstance(transform, Mixup | Cutmix)]
        self._needs_limits = any(transform.kind in CHANGES for transform in augmentation.transforms)

    def __call__(self, ids: Tensor, view: int) -> Augmented:
        """The samples `ids` (B,), int64, as the view shows them; new tensors."""
        images, draws = self._rows(ids), self._draw(ids, view)
        assert self._limits or images.dtype == torch.uint8 or not self._needs_limits  # noqa: S101 - ours, not a user's
        if not self._mixing:
            return Augmented(_in_parts(self._change, images, draws), None, None)
        mixing = draws[:, len(self._transforms):]
        partners = draw_partners(mixing, self._partners)
        others, their_draws = self._rows(partners), self._draw(partners, view)
        weights, shares = draw_blend(mixing, self._mixing, (images.shape[2], images.shape[3]))
        return Augmented(_in_parts(self._blend, images, draws, others, their_draws, weights), partners, shares)

    def _draw(self, ids: Tensor, view: int) -> Tensor:
        """Random bits (B, places, NUM_DRAWS)."""
        return draw(ids, stream_keys(self._seed, view, self._num_places, ids.device)).movedim(-1, 0)

    def _change(self, images: Tensor, draws: Tensor) -> Tensor:
        limits = self._limits or BYTES
        images = images.contiguous()
        for transform, numbers in zip(self._transforms, draws.permute(1, 2, 0), strict=False):  # mixing has draws too
            images = transform(images, numbers, limits)
        return images

    def _blend(self, images: Tensor, draws: Tensor, others: Tensor, their_draws: Tensor, weights: Tensor) -> Tensor:
        return blend(self._change(images, draws), self._change(others, their_draws), weights)


def _ready(transform: Transform) -> Callable[[Tensor, Tensor, Limits], Tensor]:
    """The transform as a function of images, draws (NUM_DRAWS, B) and limits."""
    fields = transform.model_dump(exclude={"kind"})
    if transform.kind in CHANGES:
        return partial(CHANGES[transform.kind], **fields)
    move = partial(MOVES[transform.kind], **fields)
    return lambda images, draws, _: move(images, draws)


def _in_parts(function: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
    """`function` of tensors that have the samples first, a few samples at a time where that is faster."""
    size = max(1, _PART_VALUES // images.shape[1:].numel())
    if images.device.type != "cpu" or len(images) <= size:
        return function(images, *others)
    parts = zip(*(tensor.split(size) for tensor in (images, *others)), strict=True)
    first = function(*next(parts))
    result = first.new_empty(len(images), *first.shape[1:])
    result[:size] = first
    for into, part in zip(result[size:].split(size), parts, strict=True):
        into.copy_(function(*part))
    return result
