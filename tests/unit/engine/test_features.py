"""What a tap takes from a model, however the model is written, wrapped or copied."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillhouse.contract.failures import IncompatibleLayersError, LayerNotReachedError, UnknownLayerError
from stillhouse.contract.spec import Cnn
from stillhouse.models import build
from worker.engine.features import Tap, first_tensor, shapes_of

POINTERS = {"body.0": "/objective/terms/0/pairs/0/student", "body.2": "/objective/terms/1/pairs/3/student"}


class Residual(nn.Module):
    """Writes over the outputs of its layers, as many published networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu(self.first(inputs))
        outputs: Tensor = self.second(hidden)
        outputs += inputs
        return cast("Tensor", self.relu(outputs))


def network() -> nn.Module:
    torch.manual_seed(0)
    return build(Cnn(channels=[4, 6]), input_shape=(1, 8, 8), num_classes=3)


def images(number: int = 5) -> Tensor:
    return torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def body(model: nn.Module, depth: int, inputs: Tensor) -> Tensor:
    """The output of `body.<depth - 1>`, by running the layers one by one."""
    for layer in list(cast("nn.Sequential", model.body))[:depth]:
        inputs = layer(inputs)
    return inputs


def test_the_outputs_of_the_named_layers_are_taken_once() -> None:
    model, inputs = network().eval(), images()
    tap = Tap(model, POINTERS)
    model(inputs)
    taken = tap.take()
    with pytest.raises(LayerNotReachedError):
        tap.take()
    assert list(taken) == ["body.0", "body.2"]
    assert torch.equal(taken["body.0"], body(model, 1, inputs))
    assert torch.equal(taken["body.2"], body(model, 3, inputs))


def test_the_last_pass_counts() -> None:
    model = network().eval()
    tap = Tap(model, POINTERS)
    model(images(2))
    model(images(5)[3:4])
    assert torch.allclose(tap.take()["body.2"], body(model, 3, images(5)[3:4]))


def test_the_gradient_goes_through_what_was_taken() -> None:
    model, inputs = network(), images()
    tap = Tap(model, {"body.2": ""})
    model(inputs)
    tap.take()["body.2"].square().sum().backward()
    weight = cast("Tensor", cast("Any", model).body[0].weight)
    assert weight.grad is not None
    found = weight.grad.clone()
    weight.grad = None
    body(network(), 3, inputs)
    untapped = network()
    body(untapped, 3, inputs).square().sum().backward()
    assert torch.allclose(found, cast("Any", untapped).body[0].weight.grad)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_what_follows_a_layer_cannot_write_over_what_was_taken(with_gradient: bool) -> None:
    torch.manual_seed(0)
    model, inputs = Residual(), torch.randn(50, 3)
    tap = Tap(model, {"first": "", "second": ""})
    with torch.set_grad_enabled(with_gradient):
        answer = model(inputs)
    taken = tap.take()
    first = inputs @ model.first.weight.T + model.first.bias
    second = first.relu() @ model.second.weight.T + model.second.bias
    assert (first < 0).any()
    assert torch.allclose(taken["first"], first)
    assert torch.allclose(taken["second"], second)
    assert torch.allclose(answer, (second + inputs).relu())
    if with_gradient:
        (gradient,) = torch.autograd.grad(taken["second"].sum(), model.second.bias)
        assert gradient.tolist() == [50.0] * 3


def test_of_a_layer_that_runs_twice_the_last_run_counts() -> None:
    model, inputs = Residual(), torch.randn(5, 3)
    tap = Tap(model, {"relu": ""})
    answer = model(inputs)
    assert torch.equal(tap.take()["relu"], answer)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("body.33", ["body.3"]),
        ("boby.3", ["body.3"]),
        ("module.body.3", ["body.3"]),
        ("layer1.conv", ["body", "head"]),  # nothing is near: the top of the model is told
    ],
)
def test_an_unknown_layer_is_told_with_the_nearest(path: str, nearest: list[str]) -> None:
    with pytest.raises(UnknownLayerError, match=rf"the model has no layer {path}") as refused:
        Tap(network(), POINTERS | {path: "/objective/terms/7/pairs/1/teacher"})
    assert refused.value.param == "/objective/terms/7/pairs/1/teacher"
    suggested = refused.value.message.partition("the nearest are ")[2].split(", ")
    assert len(suggested) <= 3
    assert set(nearest) <= set(suggested)


def test_an_unknown_layer_leaves_no_hook() -> None:
    model = network()
    with pytest.raises(UnknownLayerError):
        Tap(model, {"body.0": "", "boby.1": ""})
    assert not any(module._forward_hooks for module in model.modules())  # noqa: SLF001 - there is no public way


def test_a_layer_that_does_not_run_is_told() -> None:
    model = Residual()
    tap = Tap(model, {"first": "/a", "unused": "/b"})
    model(torch.randn(2, 3))
    with pytest.raises(LayerNotReachedError, match="layer unused") as refused:
        tap.take()
    assert refused.value.param == "/b"


class Changing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sometimes = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast("Tensor", self.sometimes(inputs)) if len(inputs) > 1 else inputs


def test_what_an_earlier_pass_left_does_not_stand_for_this_one() -> None:
    model = Changing()
    tap = Tap(model, {"sometimes": ""})
    model(torch.randn(2, 3))
    model(torch.randn(1, 3))
    with pytest.raises(LayerNotReachedError):
        tap.take()


def test_a_copy_of_the_model_is_not_tapped() -> None:
    model = network()
    tap = Tap(model, POINTERS)
    model(images(4))
    copied = copy.deepcopy(model)  # with outputs in the tap, which cannot be copied
    copied(images(2))
    assert len(tap.take()["body.0"]) == 4


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("tapped_first", [True, False])
def test_a_model_in_several_processes_is_tapped_by_its_own_paths(tapped_first: bool) -> None:
    model = network().eval()
    tap = Tap(model, POINTERS) if tapped_first else None
    wrapped = DistributedDataParallel(model)
    tap = tap or Tap(wrapped, POINTERS)
    wrapped(images())
    assert torch.equal(tap.take()["body.2"], body(model, 3, images()))


@pytest.mark.parametrize("tapped_first", [True, False])
def test_a_compiled_model_is_tapped_by_its_own_paths(tapped_first: bool) -> None:
    model = network().eval()
    tap = Tap(model, POINTERS) if tapped_first else None
    compiled = cast("nn.Module", torch.compile(model, backend="eager"))
    tap = tap or Tap(compiled, POINTERS)
    for number in (5, 3):
        compiled(images(number))
        assert torch.allclose(tap.take()["body.2"], body(model, 3, images(number)))


def test_nothing_is_hooked_where_nothing_is_asked_for() -> None:
    model = network()
    tap = Tap(model, {})
    assert not any(module._forward_hooks for module in model.modules())  # noqa: SLF001 - there is no public way
    model(images())
    assert tap.take() == {}


def test_a_closed_tap_takes_nothing_more() -> None:
    model = network()
    tap = Tap(model, POINTERS)
    tap.close()
    model(images())
    assert not model._forward_pre_hooks  # noqa: SLF001 - there is no public way
    with pytest.raises(LayerNotReachedError):
        tap.take()


ONES, TWOS = torch.ones(2), torch.full((2,), 2.0)


@pytest.mark.parametrize(
    ("output", "taken"),
    [
        (ONES, ONES),
        ((ONES, TWOS), ONES),
        ([None, (TWOS, ONES)], TWOS),
        ({"state": None, "values": TWOS}, TWOS),
        (SimpleNamespace(pooler_output=TWOS, last_hidden_state=ONES), ONES),
        ((None, 3), None),
        ("text", None),
    ],
    ids=str,
)
def test_the_first_tensor_of_what_a_layer_gives_is_taken(output: object, taken: Tensor | None) -> None:
    assert first_tensor(output) is taken


def test_the_hidden_state_of_a_transformer_is_taken() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    assert first_tensor(outputs.BaseModelOutputWithPooling(last_hidden_state=ONES, pooler_output=TWOS)) is ONES
    assert first_tensor(outputs.ImageClassifierOutput(logits=TWOS)) is TWOS


def test_shapes_are_those_of_one_item() -> None:
    model = network()
    tap = Tap(model, POINTERS | {"head": ""})
    model(images(4))
    assert tap.shapes(4) == {"body.0": (4, 8, 8), "body.2": (4, 8, 8), "head": (3,)}
    assert shapes_of({"head": torch.zeros(2, 7, 5)}) == {"head": (7, 5)}


class Gives(nn.Module):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.output = output

    def forward(self, _: Tensor) -> Tensor:
        return cast("Tensor", self.layer(self.output))


@pytest.mark.parametrize(
    "output",
    [torch.zeros(8, 3), torch.zeros(2), torch.zeros(()), torch.zeros(2, 3, dtype=torch.int64)],
    ids=lambda output: f"{output.dtype} {list(output.shape)}",
)
def test_a_layer_whose_outputs_are_not_one_row_of_numbers_per_item_is_refused(output: Tensor) -> None:
    model = Gives(output)
    tap = Tap(model, {"layer": "/objective/terms/0/pairs/0/teacher"})
    model(torch.zeros(2, 3))
    with pytest.raises(IncompatibleLayersError, match=r"layer layer gives torch\.\w+ of shape") as refused:
        tap.shapes(2)
    assert refused.value.param == "/objective/terms/0/pairs/0/teacher"
