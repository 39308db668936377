"""Blending of two samples and of their labels."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor

from stillhouse.contract.spec import Augmentation, Cutmix, Flip, Jitter, Mixup, Shift
from tests.fixtures.pictures import pictures, show
from worker.engine.data import Augmenter, mixed_labels
from worker.engine.data.augment.draws import draw
from worker.engine.data.augment.mixing import symmetric_beta


def drawn_shares(alpha: float) -> npt.NDArray[np.float64]:
    radii, angles = draw(torch.arange(20_000), torch.tensor([3, 4]))
    return symmetric_beta(alpha, radii, angles).double().numpy()


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 1.7, 8.0, 100.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    shares = drawn_shares(alpha)
    # The lower half, since close to 1 a float32 cannot tell apart what the distribution of a small alpha does.
    half = shares[shares < 0.5]
    assert abs(len(half) - 10_000) < 4 * 71  # standard deviations
    assert stats.kstest(half, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > 1e-3
    assert stats.kstest(shares[shares < 0.999], _below(alpha, 0.999)).pvalue > 1e-3


def _below(alpha: float, most: float) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    beta = stats.beta(alpha, alpha)
    return lambda x: np.asarray(beta.cdf(x) / beta.cdf(most))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2, 1.0])
def test_shares_are_as_often_near_the_ends_as_they_should(alpha: float) -> None:
    shares = drawn_shares(alpha)
    edges = [-1, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-6, 2]
    expected = 20_000 * np.diff(stats.beta(alpha, alpha).cdf(edges))
    counts, _ = np.histogram(shares, edges)
    assert ((counts - expected) ** 2 / expected).sum() < 34  # 9 degrees of freedom: p about 1e-4


def mixed(own: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """The oracle of mixup."""
    rows = [share * a.double() + (1 - share) * b.double()
            for share, a, b in zip(shares.double().tolist(), own, other, strict=True)]
    return torch.stack(rows)


def test_mixup_blends_a_sample_with_its_partner_as_the_same_view_shows_both() -> None:
    images, ids = pictures(50), torch.arange(10, 40)
    before = (Shift(pixels=2), Flip(), Jitter())
    shown, partners, shares = show(images, ids, *before, Mixup(alpha=1.0), view=5)
    assert partners is not None
    assert shares is not None
    own, other = (show(images, chosen, *before, view=5).images for chosen in (ids, partners))
    assert torch.allclose(shown.double(), mixed(own, other, shares), atol=1e-4)
    assert 0.3 < float(shares.mean()) < 0.7


def test_cutmix_puts_a_rectangle_of_the_partner_in_and_tells_what_is_left() -> None:
    white, black = torch.full((1, 3, 9, 7), 255, dtype=torch.uint8), torch.zeros(1, 3, 9, 7, dtype=torch.uint8)
    images, ids = torch.cat([white, black]).repeat(200, 1, 1, 1), torch.arange(0, 400, 2)
    shown, partners, shares = show(images, ids, Cutmix())
    assert partners is not None
    assert shares is not None
    assert shown.dtype == torch.uint8
    kept = (shown == 255).float().mean((1, 2, 3))
    is_black = partners % 2 == 1
    assert torch.allclose(kept[is_black], shares[is_black])
    assert bool((kept[~is_black] == 1).all())
    assert bool((shown[is_black] == 0).any(0).all())  # every pixel is reached
    for image in shown[is_black][:, 0].numpy():
        rows, columns = np.nonzero((image == 0).any(1))[0], np.nonzero((image == 0).any(0))[0]
        if len(rows):
            assert (image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] == 0).all()
            assert (image == 0).sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_cutmix_leaves_what_the_papers_own_procedure_leaves() -> None:
    """Its reference, written for one image: the box's centre is any pixel, its sides are cut at the edge."""
    random = np.random.default_rng(0)
    side = 24
    expected = []
    for _ in range(4000):
        cut = round(side * (1 - random.beta(0.7, 0.7)) ** 0.5)
        starts = random.integers(0, side, 2) - cut // 2
        extents = np.minimum(starts + cut, side) - np.maximum(starts, 0)
        expected.append(1 - extents.prod() / side**2)
    ids = torch.arange(4000)
    images = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    cutmix = Augmentation(transforms=[Cutmix(alpha=0.7)])
    shares = Augmenter(cutmix, lambda chosen: images.expand(len(chosen), 1, side, side), ids)(ids, 0).shares
    assert shares is not None
    assert stats.ks_2samp(shares.numpy(), expected).pvalue > 1e-3


def test_cutmix_copies_pixels_of_both_as_they_are() -> None:
    images, ids = pictures(40), torch.arange(40)
    shown, partners, _ = show(images, ids, Flip(), Cutmix())
    assert partners is not None
    own, other = (show(images, chosen, Flip()).images for chosen in (ids, partners))
    assert bool(((shown == own) | (shown == other)).all())
    assert not torch.equal(shown, own)


def test_where_both_stand_each_sample_takes_one_of_them() -> None:
    images, ids = pictures(1).repeat(2000, 1, 1, 1), torch.arange(2000)
    images[::2] = 255 - images[::2]
    shown, partners, shares = show(images, ids, Mixup(alpha=1.0), Cutmix())
    assert partners is not None
    assert shares is not None
    own, other = images, images[partners]
    differ = (ids + partners) % 2 == 1
    copied = ((shown == own) | (shown == other)).flatten(1).all(1)[differ]
    assert abs(int(copied.sum()) - len(copied) / 2) < 4 * (len(copied) / 4) ** 0.5
    blended = torch.isclose(shown.double(), mixed(own, other, shares), atol=1e-3).flatten(1).all(1)[differ]
    assert bool((copied | blended).all())


def test_only_some_are_mixed_when_asked() -> None:
    images, ids = pictures(1000), torch.arange(1000)
    for transform in (Mixup(alpha=1.0, probability=0.3), Cutmix(probability=0.3)):
        shown, _, shares = show(images, ids, transform)
        assert shares is not None
        whole = shares == 1
        assert 620 < int(whole.sum()) < 800
        assert torch.equal(shown[whole], images[whole].to(shown.dtype))


def test_partners_are_even_over_the_training_split_and_never_outside() -> None:
    images, train = pictures(60, 1, 2, 2), torch.arange(0, 60, 3)
    ids = train.repeat(200)
    augmentation = Augmentation(transforms=[Mixup()])
    found = []
    for view in range(5):
        partners = Augmenter(augmentation, lambda chosen: images[chosen], train)(ids[:20], view).partners
        assert partners is not None
        found.append(partners)
    assert set(torch.cat(found).tolist()) <= set(train.tolist())
    many = Augmenter(augmentation, lambda chosen: images[chosen % 60], train)(torch.arange(8000), 0).partners
    assert many is not None
    counts = torch.bincount(many, minlength=60)[train].double()
    assert float(((counts - 400) ** 2 / 400).sum()) < 52  # 19 degrees of freedom: p about 1e-4


def test_labels_are_mixed_by_shares() -> None:
    labels, partners = torch.tensor([0, 2, 1, -1]), torch.tensor([1, 2, -1, 0])
    rows = mixed_labels(labels, partners, torch.tensor([0.25, 0.5, 0.75, 0.5]), 3)
    expected = [[0.25, 0.75, 0], [0, 0, 1], [0, 0.75, 0], [0.5, 0, 0]]
    assert torch.equal(rows, torch.tensor(expected))


def test_rows_of_labels_are_mixed_as_they_are() -> None:
    several = torch.tensor([[1, 1, 0], [0, 0, 1]])
    targets = torch.tensor([[0.5, -2.0, 4.0], [1.5, 0.0, 8.0]])
    shares = torch.tensor([0.25, 1.0])
    assert mixed_labels(several, several.flip(0), shares, 3).tolist() == [[0.25, 0.25, 0.75], [0, 0, 1]]
    assert mixed_labels(targets, targets.flip(0), shares, 3).tolist() == [[1.25, -0.5, 7.0], [1.5, 0, 8]]


def test_without_mixing_there_are_no_partners() -> None:
    _, partners, shares = show(pictures(4), torch.arange(4), Flip())
    assert partners is None
    assert shares is None
