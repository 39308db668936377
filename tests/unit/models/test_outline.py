"""Models without memory."""

import threading

import pytest
import torch
from torch import nn

from stillhouse.contract.failures import UnbuildableModelError
from stillhouse.contract.spec import Mlp, Torchvision
from stillhouse.models import outlined
from stillhouse.models.outline import outline
from tests.fixtures.networks import fitted


def devices(model: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


def test_a_model_of_half_a_terabyte_is_outlined_at_once() -> None:
    model = outlined(fitted(Mlp(hidden=[65_536] * 32), [4]))
    assert sum(parameter.nbytes for parameter in model.parameters()) > 5e11
    assert devices(model) == {"meta"}


def test_a_constructor_that_calculates_with_tensors_is_outlined_too() -> None:
    # Of torchvision's, the regnets cannot be built on the meta device.
    model = outlined(fitted(Torchvision(name="regnet_x_400mf"), [3, 32, 32]))
    assert devices(model) == {"meta"}
    assert model.get_parameter("fc.weight").shape == (3, 400)


class Calculating(nn.Module):
    """Half a terabyte whose constructor needs to know a tensor's value."""

    def __init__(self) -> None:
        super().__init__()
        if torch.rand(3).sum().device.type == "meta":
            raise UnbuildableModelError
        self.layers = nn.Sequential(*(nn.Linear(65_536, 65_536) for _ in range(32)))


def test_its_parameters_take_no_memory_even_then_and_no_random_number_is_missed() -> None:
    before = torch.get_rng_state()
    assert sum(parameter.nbytes for parameter in outline(Calculating).parameters()) > 5e11
    assert torch.equal(torch.get_rng_state(), before)


def test_other_threads_build_their_models_meanwhile() -> None:
    made: list[nn.Module] = []

    def build() -> nn.Module:
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        return Calculating()

    outline(build)
    assert [devices(model) for model in made] == [{"cpu"}, {"cpu"}]


def test_too_many_modules_are_refused_and_counted_for_each_model_alone() -> None:
    def build(count: int) -> nn.Module:
        return nn.Sequential(*(nn.Identity() for _ in range(count)))

    for _ in range(2):
        outline(lambda: build(20_000))
    with pytest.raises(UnbuildableModelError, match="more than 20,000 modules"):
        outline(lambda: build(20_001))
    build(20_001)


def test_huge_tables_are_refused() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("index", torch.zeros(2**14, 2**14 + 1), persistent=False)

    with pytest.raises(UnbuildableModelError, match="tables of"):
        outline(Positions)
