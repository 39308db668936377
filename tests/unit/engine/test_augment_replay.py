"""What a soft-label store relies on: an image's bits depend on seed, sample and view alone."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stillhouse.contract.spec import (
    Affine,
    Augmentation,
    Crop,
    Cutmix,
    Erasing,
    Flip,
    Jitter,
    Mixup,
    Noise,
    RandomAugment,
    ResizedCrop,
    Rotate,
    Shift,
    Transform,
)
from stillhouse.contract.spec.augmentation import ImageShape
from tests.fixtures.pictures import pictures, show
from worker.engine.data.augment import Augmenter, augmenter
from worker.engine.data.augment.draws import NUM_DRAWS, draw, stream_keys

EACH: list[Transform] = [
    Shift(), Flip(vertical=True), Crop(padding=3, padding_mode="reflect"), ResizedCrop(), Rotate(degrees=180), Affine(),
    Jitter(saturation=0.5, hue=0.5), RandomAugment(num_ops=4, magnitude=0.7), Erasing(probability=1.0), Noise(),
    Mixup(), Cutmix(),
]
ALL = [*EACH[:6], Jitter(saturation=0.5, hue=0.5), *EACH[7:]]
COPYING = {"shift", "flip", "crop", "erasing", "cutmix"}
NAMES = [transform.kind for transform in EACH]


def test_every_kind_is_tried_and_has_a_function() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(Transform)[0])}
    assert set(NAMES) == kinds
    assert augmenter.MOVES.keys() | augmenter.CHANGES.keys() | {"mixup", "cutmix"} == kinds


def fitting(height: int, width: int) -> list[Transform]:
    """The transforms that images of this size can go through."""
    return [each for each in ALL if each.misfit(ImageShape(3, height, width)) is None]


@pytest.mark.parametrize("transform", EACH, ids=NAMES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_sample_is_shown_alike_whatever_stands_beside_it(transform: Transform, channels: int) -> None:
    if isinstance(transform, Jitter) and channels != 3:
        transform = Jitter()
    images = pictures(40, channels)
    ids = torch.arange(5, 38)
    together, partners, shares = show(images, ids, transform, view=3)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))
    for places in (order, order[:13], *torch.arange(len(ids)).split(1)):
        again = show(images, ids[places], transform, view=3)
        assert torch.equal(again.images, together[places])
        if partners is not None and shares is not None:
            assert again.partners is not None
            assert again.shares is not None
            assert torch.equal(again.partners, partners[places])
            assert torch.equal(again.shares, shares[places])


@given(
    st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 29), min_size=1, max_size=25, unique=True),
    st.integers(0, 2**40), st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_the_whole_list_is_replayed_for_any_size_any_batch_and_any_number_of_threads(
    height: int, width: int, chosen: list[int], view: int, threads: int
) -> None:
    images, transforms = pictures(30, 3, height, width), fitting(height, width)
    whole = show(images, torch.arange(30), *transforms, view=view).images
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        part = show(images, torch.tensor(chosen), *transforms, view=view).images
    finally:
        torch.set_num_threads(before)
    assert torch.equal(part, whole[chosen])
    assert bool(part.isfinite().all())
    assert part.shape == (len(chosen), 3, height, width)


@pytest.mark.parametrize("mixing", [[], EACH[-2:]])
def test_going_through_a_large_batch_in_parts_changes_nothing(
    mixing: list[Transform], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, ids = pictures(40), torch.arange(40)
    transforms = [*ALL[:-2], *mixing]
    whole = show(images, ids, *transforms)
    monkeypatch.setattr(augmenter, "_PART_VALUES", 7 * images[0].numel())
    parts = show(images, ids, *transforms)
    assert torch.equal(parts.images, whole.images)
    assert torch.equal(show(images, ids[:3], *transforms).images, whole.images[:3])


@pytest.mark.parametrize("transform", EACH, ids=NAMES)
def test_another_view_another_seed_and_another_place_in_the_list_draw_anew(transform: Transform) -> None:
    images, ids = pictures(40), torch.arange(40)
    first = show(images, ids, transform).images
    assert not torch.equal(show(images, ids, transform, view=1).images, first)
    assert not torch.equal(show(images, ids, transform, seed=1).images, first)
    flipped = show(images, ids, Flip()).images
    if not transform.mixes:
        assert not torch.equal(show(flipped, ids, transform).images, show(images, ids, Flip(), transform).images)


@pytest.mark.parametrize("transform", EACH, ids=NAMES)
def test_what_only_copies_pixels_keeps_their_type_and_all_else_is_float32(transform: Transform) -> None:
    ids = torch.arange(12)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64):
        images = pictures(12).to(dtype)
        shown = show(images, ids, transform, limits=(0, 255)).images
        assert shown.dtype == (dtype if transform.kind in COPYING else torch.float32)
        assert torch.equal(shown, show(pictures(12), ids, transform).images.to(shown.dtype))


@pytest.mark.parametrize("transform", EACH, ids=NAMES)
def test_any_memory_format_goes_in_and_a_contiguous_one_comes_out(transform: Transform) -> None:
    images, ids = pictures(12), torch.arange(12)
    expected = show(images, ids, transform).images
    assert expected.is_contiguous()
    strided = Augmenter(
        Augmentation(transforms=[transform]),
        lambda chosen: images[chosen].contiguous(memory_format=torch.channels_last), ids,
    )(ids, 0).images
    assert torch.equal(strided, expected)
    assert strided.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("transform", EACH, ids=NAMES)
def test_what_is_shown_is_new_and_what_was_given_stays(transform: Transform, dtype: torch.dtype) -> None:
    given_images = pictures(12).to(dtype)
    augmentation = Augmentation(transforms=[transform])
    show_all = Augmenter(augmentation, lambda _: given_images, torch.arange(12), limits=(0, 255))
    show_all(torch.arange(12), 0).images.zero_()
    assert torch.equal(given_images, pictures(12).to(dtype))


def test_draws_of_views_places_and_numbers_are_unrelated() -> None:
    keys = torch.cat([stream_keys(0, view, 3, torch.device("cpu")) for view in range(4)]).flatten()
    assert len(keys.unique()) == 4 * 3 * NUM_DRAWS
    bits = draw(torch.arange(2000), keys)
    lowest, highest = (bits & 1).double(), (bits >> 61).double()
    for ones in (lowest, highest):
        correlations = torch.corrcoef(ones).fill_diagonal_(0)
        assert float(correlations.abs().max()) < 0.12  # 5 standard errors of 1 / sqrt(2000)


def frequencies(values: Tensor, count: int) -> float:
    """Chi-squared of the values 0 to count - 1 against evenness."""
    expected = len(values) / count
    return float(((torch.bincount(values, minlength=count).double() - expected) ** 2 / expected).sum())


def test_shifts_and_crops_are_even_over_places() -> None:
    corner = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    corner[0, 0, 4, 4] = 1
    images = corner.repeat(10_000, 1, 1, 1)
    for transform in (Shift(pixels=2), Crop(padding=2), Crop(padding=2, padding_mode="reflect")):
        shown = show(images, torch.arange(10_000), transform).images[:, 0, 2:7, 2:7].flatten(1)
        assert bool((shown.sum(1) == 1).all())
        assert frequencies(shown.long().argmax(1), 25) < 60  # 24 degrees of freedom: p about 1e-4


def test_flips_are_even_and_independent() -> None:
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).view(1, 1, 2, 2).repeat(8000, 1, 1, 1)
    corners = show(image, torch.arange(8000), Flip(vertical=True)).images[:, 0, 0, 0]
    assert frequencies(corners.long() - 1, 4) < 21  # 3 degrees of freedom: p about 1e-4
    upright = show(image, torch.arange(8000), Flip(horizontal=False, vertical=True)).images[:, 0, 0, 0]
    assert set(upright.tolist()) == {1, 3}


def test_tables_made_while_inferring_serve_training_too() -> None:
    images, ids = pictures(6, 3, 11, 13), torch.arange(6)
    odd = (Rotate(degrees=31.7), Affine(degrees=3.3, shear=2.1), ResizedCrop(min_ratio=0.91), Mixup(alpha=0.37))
    with torch.inference_mode():
        expected = show(images, ids, *odd, view=99).images.tolist()
    shown = show(images, ids, *odd, view=99).images
    assert shown.tolist() == expected
    weight = torch.ones(3, requires_grad=True)
    (shown * weight[:, None, None]).sum().backward()
    assert weight.grad is not None
