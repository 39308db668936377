"""What holds for every kind of architecture, whoever implements it."""

import socket
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from stillhouse.contract.spec import Architecture, Normalization
from stillhouse.contract.spec.architecture import AnyArchitecture
from stillhouse.models import (
    build,
    build_complete,
    count_parameters,
    describe,
    load_checkpoint,
    outlined,
    save_checkpoint,
)
from stillhouse.models.bundle import Config, build_network
from tests.fixtures.networks import EVERY, fitted, lively

SHAPE = [1, 32, 32]
DESCRIBED = {
    "mlp": "mlp 1024-6-3",
    "cnn": "cnn 1-4-3",
    "resnet": "resnet8 1-4-4-8-16-3",
    "wrn": "wrn-10-1 1-16-16-32-64-3",
    "timm": "timm resnet10t",
    "torchvision": "torchvision squeezenet1_1",
    "transformers": "transformers vit",
    "shortened": "resnet14 1-4-4-8-16-3, only layer1 0, layer2 0",
    "narrowed": "cnn 1-8-3, pruned",
}


@pytest.fixture(params=EVERY)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return EVERY[request.param]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever a socket takes
        raise AssertionError(f"a socket was asked for: {args} {kwargs}")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_kind_of_the_spec_is_here() -> None:
    assert set(EVERY) == {kind.model_fields["kind"].default for kind in get_args(AnyArchitecture)}


@pytest.mark.usefixtures("no_network")
def test_it_is_built_without_a_network_and_answers_with_logits(architecture: Architecture) -> None:
    model = build(architecture, input_shape=SHAPE, num_classes=3)
    for training in (True, False):
        assert model.train(training)(torch.randn(2, *SHAPE)).shape == (2, 3)
    assert describe(architecture, SHAPE, 3) == DESCRIBED[architecture.kind]


def test_its_weights_are_drawn_from_the_seed(architecture: Architecture) -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build_complete(fitted(architecture, SHAPE))
        drawn.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_its_outline_has_all_names_and_shapes_and_costs_nothing(architecture: Architecture) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    outline = outlined(fitted(architecture, SHAPE))
    assert torch.equal(torch.get_rng_state(), before)
    model = build_complete(fitted(architecture, SHAPE))
    assert count_parameters(outline) == count_parameters(model)
    assert {name: tensor.shape for name, tensor in outline.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert {tensor.device.type for tensor in (*outline.parameters(), *outline.buffers())} == {"meta"}


def test_a_checkpoint_gives_it_back_bit_for_bit(tmp_path: Path, architecture: Architecture) -> None:
    named = fitted(architecture, SHAPE)
    model, inputs = lively(named), torch.randn(4, *SHAPE)
    save_checkpoint(tmp_path / "a.safetensors", model, named, Normalization(mean=[0.5], std=[2.0]))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert found.architecture == named
    assert found.remarks == []
    assert torch.equal(found.model(inputs), model(inputs))


def test_a_bare_file_tells_how_many_classes_it_was_trained_for(tmp_path: Path, architecture: Architecture) -> None:
    model = lively(fitted(architecture, SHAPE))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt", architecture, input_shape=SHAPE)
    assert found.architecture == fitted(architecture, SHAPE)
    inputs = torch.randn(4, *SHAPE)
    assert torch.equal(found.model(inputs), model(inputs))


def test_a_bundles_files_give_it_back_bit_for_bit(tmp_path: Path, architecture: Architecture) -> None:
    named = fitted(architecture, SHAPE)
    model, inputs = lively(named), torch.randn(4, *SHAPE)
    save_checkpoint(tmp_path / "model.safetensors", model, named, None)
    config = Config(architecture=named).model_dump_json().encode()
    network = build_network(config, (tmp_path / "model.safetensors").read_bytes())
    assert torch.equal(network(inputs), model(inputs))
    assert not any(parameter.requires_grad for parameter in network.parameters())
