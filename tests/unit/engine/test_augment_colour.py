"""What changes values, against torchvision's functions on single images."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import functional as vision

from stillhouse.contract.spec import Jitter, Noise, RandomAugment
from tests.fixtures.pictures import meaning, pictures, show
from tests.unit.engine.test_augment_geometry import sampled
from worker.engine.data import measure_limits
from worker.engine.data.augment.colour import BYTES, jitter, sum_by_halves
from worker.engine.data.augment.random_augment import NUM_OPERATIONS, random_augment

NOTHING = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
PARTS = [0.0, 0.2, 0.5, 0.77, 0.9999]


def jittered(images: Tensor, **amounts: float) -> Tensor:
    """Each image by the same place in PARTS of every amount."""
    return jitter(images, meaning(PARTS, PARTS, PARTS, PARTS), BYTES, **NOTHING | amounts)


ADJUST = {
    "brightness": vision.adjust_brightness, "contrast": vision.adjust_contrast, "saturation": vision.adjust_saturation,
}


@pytest.mark.parametrize("name", ADJUST)
@pytest.mark.parametrize("size", [(9, 7), (32, 32), (1, 1)])
def test_brightness_contrast_and_saturation_are_torchvisions(name: str, size: tuple[int, int]) -> None:
    images = pictures(len(PARTS), 3, *size)
    ours = jittered(images, **{name: 0.8})
    for image, part, found in zip(images, PARTS, ours, strict=True):
        factor = 1 + 0.8 * (2 * part - 1)
        # Its weights of red, green and blue add up to 0.9999.
        assert torch.allclose(found / 255, ADJUST[name](image / 255, factor), atol=3e-4)
        # Of bytes it rounds greys and results down.
        assert torch.allclose(found, ADJUST[name](image, factor).float(), atol=2.0)


@pytest.mark.parametrize("size", [(9, 7), (32, 32), (1, 1)])
def test_hue_is_torchvisions(size: tuple[int, int]) -> None:
    images = pictures(len(PARTS), 3, *size)
    images[0, 1] = images[0, 0]  # two channels alike, and grey
    images[0, 2, :, 0] = images[0, 0, :, 0]
    ours = jittered(images, hue=0.5)
    for image, part, found in zip(images, PARTS, ours, strict=True):
        assert torch.allclose(found / 255, vision.adjust_hue(image / 255, part - 0.5), atol=1e-5)


def test_one_channel_has_brightness_and_contrast() -> None:
    images = pictures(len(PARTS), 1)
    ours = jittered(images, brightness=0.6, contrast=0.7)
    for image, part, found in zip(images, PARTS, ours, strict=True):
        brighter = vision.adjust_brightness(image / 255, 1 + 0.6 * (2 * part - 1))
        expected = vision.adjust_contrast(brighter, 1 + 0.7 * (2 * part - 1))
        assert torch.allclose(found / 255, expected, atol=1e-5)


def test_everything_together_goes_in_the_documented_order() -> None:
    images = pictures(len(PARTS))
    ours = jittered(images, brightness=0.5, contrast=0.9, saturation=0.9, hue=0.3)
    for image, part, found in zip(images, PARTS, ours, strict=True):
        signed = 2 * part - 1
        expected = vision.adjust_brightness(image / 255, 1 + 0.5 * signed)
        expected = vision.adjust_contrast(expected, 1 + 0.9 * signed)
        expected = vision.adjust_saturation(expected, 1 + 0.9 * signed)
        assert torch.allclose(found / 255, vision.adjust_hue(expected, 0.3 * signed), atol=1e-3)


@pytest.mark.parametrize("transform", [
    Jitter(brightness=0.6, contrast=0.6, saturation=0.6, hue=0.2), Noise(std=0.2),
    RandomAugment(num_ops=1, magnitude=0.7),
])
def test_floats_of_any_range_are_changed_like_bytes(transform: Jitter | Noise | RandomAugment) -> None:
    """Bytes from 0 to 255 as floats from -1 to 3: black is -1, white 3."""
    images, ids = pictures(60), torch.arange(60)
    of_bytes = show(images, ids, transform).images
    floats = images * (4 / 255) - 1
    of_floats = show(floats, ids, transform, limits=(-1, 3)).images
    difference = ((of_floats + 1) * (255 / 4) - of_bytes).abs().flatten(1).amax(1)
    if isinstance(transform, RandomAugment):
        # What comes in from outside is 0, a grey between -1 and 3; rounding may turn a threshold.
        assert int((difference < 0.01).sum()) > 30
    else:
        assert float(difference.max()) < 0.01
    assert float(of_floats.min()) >= -1
    assert float(of_floats.max()) <= 3.0001


def test_factors_are_even() -> None:
    grey = torch.full((2000, 1, 2, 2), 100, dtype=torch.uint8)
    shown = show(grey, torch.arange(2000), Jitter(brightness=0.4, contrast=0.0)).images[:, 0, 0, 0] / 100
    assert stats.kstest(shown.numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000, 150_529])
def test_a_sum_by_halves_is_a_sum(length: int) -> None:
    values = torch.rand(3, length, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sum_by_halves(values).double(), values.double().sum(1), rtol=1e-6)


def test_noise_is_normal_of_the_given_width() -> None:
    grey = torch.full((400, 1, 10, 10), 100.0)
    shown = show(grey, torch.arange(400), Noise(std=0.05), limits=(0, 200)).images
    residual = (shown - 100).flatten().numpy() / 10
    assert stats.kstest(residual, stats.norm.cdf).pvalue > 1e-3
    beside = np.corrcoef(shown[:, 0, 0, 0], shown[:, 0, 0, 1])[0, 1]
    assert abs(beside) < 0.2  # 4 standard errors


def test_noise_stays_within_the_range_and_differs_from_sample_to_sample() -> None:
    black = torch.zeros(50, 3, 5, 5, dtype=torch.uint8)
    shown = show(black, torch.arange(50), Noise(std=0.5)).images
    assert float(shown.min()) == 0
    assert float(shown.max()) <= 255
    assert len(shown.flatten(1).unique(dim=0)) == 50


def one_operation(images: Tensor, kind: int, *, sign: int, magnitude: float) -> Tensor:
    """The images by the operation of that number."""
    bits = next(bits for bits in range(sign << 32, (sign << 32) + NUM_OPERATIONS) if bits % NUM_OPERATIONS == kind)
    draws = torch.full((8, len(images)), bits)
    return random_augment(images, draws, BYTES, num_ops=1, magnitude=magnitude)


@pytest.mark.parametrize("magnitude", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("sign", [0, 1])
def test_operations_on_values_are_torchvisions(magnitude: float, sign: int) -> None:
    """On bytes; torchvision rounds down, and takes greys from bytes."""
    images = pictures(6, 3, 40, 30)  # enough pixels for 255 equal steps
    images[0] = 77
    images[1, 0] = images[1, 0].clamp(40, 90)
    factor = 1 + 0.9 * magnitude * (2 * sign - 1)
    exact, rounded = 1e-2, 2.0
    expected = {
        0: (images, 0.0),
        6: (vision.adjust_brightness(images, factor), rounded),
        7: (torch.stack([vision.adjust_contrast(image, factor) for image in images]), rounded),
        8: (vision.adjust_saturation(images, factor), rounded),
        9: (vision.adjust_sharpness(images, factor), rounded),
        10: (vision.posterize(images, 8 - round(4 * magnitude)), exact),
        11: (vision.solarize(images, 255 * (1 - magnitude)), exact),
        12: (vision.autocontrast(images), 1.0),
        13: (vision.equalize(images), exact),
    }
    for kind, (wanted, tolerance) in expected.items():
        found = one_operation(images, kind, sign=sign, magnitude=magnitude)
        assert torch.allclose(found, wanted.float(), atol=tolerance, rtol=0), kind


@pytest.mark.parametrize("sign", [0, 1])
def test_moves_are_those_of_the_documented_size(sign: int) -> None:
    image = pictures(1, 3, 12, 10)
    signed = 0.6 * (2 * sign - 1)
    angle = np.radians(30 * signed)
    way_back = {
        1: [[1, 0.3 * signed, 0], [0, 1, 0]],
        2: [[1, 0, 0], [0.3 * signed, 1, 0]],
        3: [[1, 0, 150 / 331 * 10 * signed], [0, 1, 0]],
        4: [[1, 0, 0], [0, 1, 150 / 331 * 12 * signed]],
        5: [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]],
    }
    for kind, matrix in way_back.items():
        found = one_operation(image, kind, sign=sign, magnitude=0.6)[0]
        assert np.allclose(found.numpy(), sampled(image[0].numpy(), np.array(matrix), "zeros"), atol=0.05), kind


def test_every_operation_is_drawn_as_often_and_to_either_side() -> None:
    images = pictures(1, 3, 20, 20).clamp(30, 200).repeat(7000, 1, 1, 1)
    shown = show(images, torch.arange(7000), RandomAugment(num_ops=1, magnitude=0.5)).images
    _, counts = shown.flatten(1).unique(dim=0, return_counts=True)
    # 5 moves and 4 factors have two sides of 250; the other five operations 500.
    expected = torch.tensor([250.0] * 18 + [500.0] * 5)
    assert len(counts) == 23
    assert float(((counts.sort().values - expected) ** 2 / expected).sum()) < 56  # 22 degrees: p about 1e-4


def test_more_operations_change_more_and_no_colour_is_no_hindrance() -> None:
    for channels in (1, 2, 4):
        images = pictures(200, channels, 8, 8)
        few = show(images, torch.arange(200), RandomAugment(num_ops=1)).images
        many = show(images, torch.arange(200), RandomAugment(num_ops=8)).images
        untouched = [int((shown == images).flatten(1).all(1).sum()) for shown in (few, many)]
        assert untouched[0] > 5 > untouched[1]


def test_a_tiny_image_is_not_sharpened_and_a_flat_one_is_not_stretched() -> None:
    for size in ((1, 1), (2, 5)):
        image = torch.full((1, 1, *size), 70, dtype=torch.uint8)
        for kind in (9, 12, 13):
            assert torch.equal(one_operation(image, kind, sign=1, magnitude=1.0), image.float())


def test_limits_are_those_of_the_type_or_of_the_training_split() -> None:
    values = torch.linspace(-3, 5, 600).view(600, 1, 1, 1)[torch.randperm(600)]
    order = values.flatten().argsort()
    train = order[10:-20].sort().values
    low, high = measure_limits(values, train, "float32")
    assert (low, high) == (float(values.flatten()[order[10]]), float(values.flatten()[order[-21]]))
    assert measure_limits(values, train, "uint8") == (0, 255)
    assert measure_limits(values, train, "bool") == (0, 1)
    assert measure_limits((values * 100).int(), train, "int32")[1] == float((values * 100).int()[train].max())


def test_images_that_are_all_of_one_value_stay_finite() -> None:
    images = torch.full((60, 3, 6, 6), 2.5)
    transforms = (Jitter(saturation=0.5, hue=0.5), RandomAugment(num_ops=8), Noise())
    for transform in transforms:
        assert bool(show(images, torch.arange(60), transform, limits=(2.5, 2.5)).images.isfinite().all())
