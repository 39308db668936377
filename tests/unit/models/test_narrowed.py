"""Layers cut to sizes that are written down."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillhouse.contract.failures import UnbuildableModelError
from stillhouse.models.narrowed import narrow, sizes_of


class Scaled(nn.Module):
    """A layer of its own, with a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.arange(6.0).view(1, 6, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.gamma


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1, groups=2), Scaled(), nn.GroupNorm(2, 6), nn.PReLU(6),
        nn.Flatten(), nn.LayerNorm(24), nn.Linear(24, 3),
    )


CUT = {
    "0": [2, 4, 1], "1": [4], "2": [4, 4, 2], "3.gamma": [1, 4, 1, 1], "4": [4], "5": [4], "7": [16], "8": [16, 3],
}


def test_every_kind_of_layer_is_cut_and_keeps_the_first_of_its_values() -> None:
    whole = network().eval()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    model = narrow(whole, CUT)
    assert model(torch.randn(2, 2, 4, 4)).shape == (2, 3)
    assert {path: sizes_of(model.get_submodule(path)) for path in CUT if path != "3.gamma"} == {
        path: sizes for path, sizes in CUT.items() if path != "3.gamma"
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][tuple(slice(size) for size in tensor.shape)])
        assert tensor.untyped_storage().nbytes() == tensor.nbytes  # the rest is not held on to


def test_what_is_not_named_stays() -> None:
    model = narrow(network(), {"0": [2, 4, 1], "1": [4]})
    assert sizes_of(model.get_submodule("2")) == [8, 6, 2]


def test_parameters_stay_parameters_and_statistics_statistics() -> None:
    model = narrow(network(), CUT)
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in network().named_parameters()}
    assert {name for name, _ in model.named_buffers()} == {name for name, _ in network().named_buffers()}


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        ({"9": [3]}, "no layer or parameter `9`"),
        ({"3": [3]}, "`3` is a Scaled, which cannot be cut"),
        ({"6": [3]}, "`6` is a Flatten"),
        ({"0": [2, 4]}, "`0` is a Conv2d, which cannot be cut"),
        ({"0": [2, 9, 1]}, "`0` has weight"),
        ({"2": [4, 3, 2]}, "`2` of 4 and 3 channels cannot have 2 groups"),
        ({"2": [8, 6, 1]}, "`2` has weight"),
        ({"4": [3]}, "`4` of 3 channels cannot have 2 groups"),
        ({"8": [25, 3]}, "`8` has weight"),
        ({"3.gamma": [4]}, "`3.gamma` has gamma"),
    ],
)
def test_what_cannot_be_is_refused(widths: dict[str, Any], told: str) -> None:
    with pytest.raises(UnbuildableModelError, match=told):
        narrow(network(), widths)


@pytest.mark.parametrize(
    "module", [nn.ConvTranspose2d(2, 2, 1), nn.LayerNorm([2, 2]), nn.MultiheadAttention(2, 1), nn.ReLU()]
)
def test_other_layers_have_no_sizes(module: nn.Module) -> None:
    assert sizes_of(module) is None
