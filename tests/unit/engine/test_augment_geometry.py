"""What moves pixels, against references written one pixel at a time and against torchvision."""

from math import exp, log, radians, tan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from stillhouse.contract.spec import Crop, Erasing, ResizedCrop
from tests.fixtures.pictures import meaning, pictures, show
from worker.engine.data.augment.geometry import affine, crop, erasing, flip, resized_crop, rotate

Array = npt.NDArray[Any]
END = 1 - 2**-15  # the last row of a table


def sampled(image: Array, way_back: Array, outside: Literal["zeros", "border"]) -> Array:
    """The image (C, H, W) at way_back @ (x, y, 1), bilinearly; pixels from the centre, one at a time, in float64."""
    channels, height, width = image.shape
    result = np.zeros((channels, height, width))

    def pixel(row: int, column: int) -> Array:
        if outside == "border":
            row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        inside = 0 <= row < height and 0 <= column < width
        return image[:, row, column].astype(float) if inside else np.zeros(channels)

    for row in range(height):
        for column in range(width):
            x, y = way_back @ (column - (width - 1) / 2, row - (height - 1) / 2, 1)
            x, y = x + (width - 1) / 2, y + (height - 1) / 2
            if outside == "border":
                x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            left, top = int(np.floor(x)), int(np.floor(y))
            right_share, lower_share = x - left, y - top
            result[:, row, column] = (
                (1 - right_share) * (1 - lower_share) * pixel(top, left)
                + right_share * (1 - lower_share) * pixel(top, left + 1)
                + (1 - right_share) * lower_share * pixel(top + 1, left)
                + right_share * lower_share * pixel(top + 1, left + 1)
            )
    return result


@pytest.mark.parametrize(("mode", "channels"), [("constant", 1), ("constant", 3), ("reflect", 1), ("reflect", 3)])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs(
    mode: Literal["constant", "reflect"], channels: int
) -> None:
    image = pictures(1, channels)
    shown = show(image.repeat(600, 1, 1, 1), torch.arange(600), Crop(padding=2, padding_mode=mode)).images
    padded = np.pad(image[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode=mode)
    windows = {padded[:, y:y + 9, x:x + 7].tobytes() for y in range(5) for x in range(5)}
    assert {picture.numpy().tobytes() for picture in shown} == windows


def test_a_draw_tells_the_way_down_and_to_the_right() -> None:
    """Draws are promised: 13 of 25 is 3 of 5 down and 2 of 5 to the right, from two pixels beyond the corner."""
    image = pictures(1)
    window = crop(image, torch.full((8, 1), 13), padding=2, padding_mode="reflect")[0]
    assert np.array_equal(window.numpy(), np.pad(image[0].numpy(), ((0, 0), (2, 2), (2, 2)), "reflect")[:, 3:12, 2:9])


def test_flips_are_numpys() -> None:
    image = pictures(1)
    for bits in range(4):
        draws = torch.zeros(8, 1, dtype=torch.int64)
        draws[0], draws[1] = bits & 1, bits >> 1
        expected = image[0].numpy()[:, ::-1 if bits & 2 else 1, ::-1 if bits & 1 else 1]
        assert np.array_equal(flip(image, draws, horizontal=True, vertical=True)[0].numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_quarter_turn_is_numpys(channels: int) -> None:
    images = pictures(2, channels, 9, 9)
    turned = rotate(images, meaning([END, 0.0]), degrees=90)
    # The last angle of the table is 0.003 degrees short of the largest.
    assert np.allclose(turned[0].numpy(), np.rot90(images[0].numpy(), 1, (1, 2)), atol=0.2)
    assert np.allclose(turned[1].numpy(), np.rot90(images[1].numpy(), -1, (1, 2)), atol=0.2)


@pytest.mark.parametrize(("height", "width"), [(9, 7), (12, 20)])
def test_turns_are_torchvisions(height: int, width: int) -> None:
    images = pictures(5, 3, height, width)
    parts = [0.0, 0.3, 0.5, 0.61, END]
    turned = rotate(images, meaning(parts), degrees=40)
    for image, part, ours in zip(images.float(), parts, turned, strict=True):
        angle = 40 * (2 * (int(part * 2**15) + 0.5) / 2**15 - 1)
        assert torch.allclose(ours, vision.rotate(image, angle, InterpolationMode.BILINEAR), atol=0.02)


def test_angles_are_even() -> None:
    """Of a plane that rises to the right, whose slope down the middle column tells the angle."""
    plane = (torch.arange(33) - 16.0).expand(2000, 1, 33, 33) + 100
    draws = meaning(torch.rand(2000, generator=torch.Generator().manual_seed(0)).tolist())
    column = rotate(plane, draws, degrees=30)[:, 0, :, 16]
    angles = torch.rad2deg(torch.asin((column[:, 15] - column[:, 17]) / 2)).numpy()
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3


@pytest.mark.parametrize("parts", [(0.1, 0.8, 0.3, 0.9, 0.2), (0.7, 0.1, 0.9, 0.4, 0.6), (0.5, 0.5, 0.5, 0.5, 0.5)])
def test_an_affine_map_is_the_inverse_of_its_steps(parts: tuple[float, ...]) -> None:
    image = pictures(1, 2, 9, 7)
    limits = {"degrees": 50.0, "translation": 0.3, "min_scale": 0.7, "max_scale": 1.6, "shear": 30.0}
    ours = affine(image, meaning(*([part] for part in parts)), **limits)[0]
    signed = [2 * part - 1 for part in parts]
    angle, lean = radians(50 * signed[0]), tan(radians(30 * signed[1]))
    scale = 0.7 + 0.9 * parts[2]
    # y goes down: a positive angle turns to the left, as seen.
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    move = np.array([[1, 0, 0.3 * signed[3] * 7], [0, 1, 0.3 * signed[4] * 9], [0, 0, 1]])
    forward = move @ turn @ np.array([[1, lean, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag([scale, scale, 1])
    expected = sampled(image[0].numpy(), np.linalg.inv(forward)[:2], "zeros")
    assert np.allclose(ours.numpy(), expected, atol=0.05)


@pytest.mark.parametrize(
    "parts", [(0.2, 0.5, 0.0, 1.0), (0.05, 0.9, 0.3, 0.8), (0.9, 0.1, 0.5, 0.5), (0.9, 0.9, 0.1, 0.2)]
)
def test_a_resized_crop_enlarges_a_window(parts: tuple[float, ...]) -> None:
    image = pictures(1, 3, 9, 7)
    ours = resized_crop(
        image, meaning(*([part] for part in parts)), min_area=0.1, max_area=0.9, min_ratio=0.5, max_ratio=2.0
    )[0]
    area, ratio = 0.1 + 0.8 * parts[0], exp(log(0.5) + parts[1] * log(4))
    across, down = min(1, (area * ratio) ** 0.5), min(1, (area / ratio) ** 0.5)
    left, top = parts[2] * (1 - across) * 7, parts[3] * (1 - down) * 9
    # Pixels from the image's centre: of the window's, and of a step from one pixel to the next.
    way_back = np.array([[across, 0, left + across * 7 / 2 - 3.5], [0, down, top + down * 9 / 2 - 4.5]])
    assert np.allclose(ours.numpy(), sampled(image[0].numpy(), way_back, "border"), atol=0.05)


def test_a_whole_window_shows_the_image_and_a_quarter_what_torchvision_enlarges() -> None:
    image = pictures(1, 3, 8, 8)
    whole = resized_crop(image, meaning(0.3, 0.7), min_area=1, max_area=1, min_ratio=1, max_ratio=1)
    assert torch.allclose(whole, image.float(), atol=1e-3)
    quarter = resized_crop(image, meaning(0.3, 0.7), min_area=0.25, max_area=0.25, min_ratio=1, max_ratio=1)
    expected = vision.resized_crop(image[0].float(), 0, 0, 4, 4, [8, 8], antialias=False)
    assert torch.allclose(quarter[0, :, :7, :7], expected[:, :7, :7], atol=1e-3)  # the rest sees beyond the window


def test_windows_are_even_in_area_and_in_the_logarithm_of_their_shape() -> None:
    """Of a plane that rises to the right and one that rises downwards, whose slopes tell the window's sides."""
    across, down = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="xy")
    planes = torch.stack([across, down]).expand(3000, 2, 32, 32)
    crop = ResizedCrop(min_area=0.1, max_area=0.5, min_ratio=0.5, max_ratio=2.0)
    shown = show(planes, torch.arange(3000), crop).images
    widths, heights = shown[:, 0, 16, 17] - shown[:, 0, 16, 16], shown[:, 1, 17, 16] - shown[:, 1, 16, 16]
    areas, ratios = (widths * heights).numpy(), (widths / heights).log().numpy()
    assert stats.kstest(areas, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(ratios, stats.uniform(log(0.5), log(4)).cdf).pvalue > 1e-3


def rectangles(shown: Tensor) -> list[tuple[int, int]]:
    """Height and width of the zeros in each image of ones, which are a rectangle."""
    found = []
    for image in shown[:, 0].numpy():
        rows, columns = np.nonzero((image == 0).any(1))[0], np.nonzero((image == 0).any(0))[0]
        if len(rows):
            assert (image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] == 0).all()
            assert (image == 0).sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            found.append((len(rows), len(columns)))
    return found


def test_an_erased_rectangle_has_the_area_and_shape_that_were_drawn() -> None:
    white = torch.ones(4000, 1, 60, 40, dtype=torch.uint8)
    transform = Erasing(probability=0.25, min_area=0.1, max_area=0.3, min_ratio=0.5, max_ratio=2.0)
    found = rectangles(show(white, torch.arange(4000), transform).images)
    assert abs(len(found) - 1000) < 110  # 4 standard deviations
    areas = np.array([height * width / 2400 for height, width in found])
    ratios = np.log([width / height * 60 / 40 for height, width in found])
    # That sides are whole pixels moves a share of less than 0.02 past any value; the test sees 1.95 / sqrt(1000).
    assert stats.kstest(areas, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-3
    assert stats.kstest(ratios, stats.uniform(log(0.5), log(4)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("parts", [(0.0, 0.0, 0.5, 0.0, 0.0), (0.0, 1.0, 1.0, 0.7, 0.2), (0.0, 0.4, 0.1, 1.0, 1.0)])
def test_an_erased_rectangle_has_its_size_to_the_pixel_and_the_rest_stays(parts: tuple[float, ...]) -> None:
    image = pictures(1, 3, 20, 30).clamp(min=1)
    shown = erasing(
        image, meaning(*([part] for part in parts)), probability=0.5, min_area=0.05, max_area=0.4, min_ratio=0.3,
        max_ratio=3.0,
    )
    area, ratio = 0.05 + 0.35 * parts[1], exp(log(0.3) + parts[2] * log(10))
    height, width = min(20, round(20 * (area / ratio) ** 0.5)), min(30, round(30 * (area * ratio) ** 0.5))
    assert rectangles(shown) == [(height, width)]
    assert torch.equal(shown[shown > 0], image.expand_as(shown)[shown > 0])


def test_a_single_pixel_is_erased_or_not() -> None:
    shown = show(torch.ones(400, 1, 1, 1, dtype=torch.uint8), torch.arange(400), Erasing(probability=0.5)).images
    assert 160 < int(shown.sum()) < 240
