"""Augmentation on a CUDA device: the draws of a CPU, and almost its pixels. Run with `-m gpu` where there is one."""

import pytest
import torch

from stillhouse.contract.spec import Augmentation, Transform
from tests.fixtures.pictures import pictures
from tests.unit.engine.test_augment_replay import EACH, NAMES
from worker.engine.data import Augmenter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.mark.parametrize("transform", EACH, ids=NAMES)
def test_a_view_is_the_cpus_and_its_bits_do_not_depend_on_the_batch(transform: Transform) -> None:
    images, ids = pictures(40, 3, 16, 12), torch.arange(40)
    augmentation = Augmentation(transforms=[transform])
    expected = Augmenter(augmentation, lambda chosen: images.index_select(0, chosen), ids)(ids, 2)
    held, there = images.cuda(), ids.cuda()
    show = Augmenter(augmentation, lambda chosen: held.index_select(0, chosen), there)
    shown = show(there, 2)
    assert shown.images.dtype == expected.images.dtype
    if expected.partners is not None and shown.partners is not None:
        assert torch.equal(shown.partners.cpu(), expected.partners)
    # A threshold may fall the other way for the last bit of a value.
    difference = (shown.images.cpu().float() - expected.images.float()).abs()
    assert float((difference > 0.05).float().mean()) < 0.01
    assert torch.equal(show(there[7:9], 2).images, shown.images[7:9])
