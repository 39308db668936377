"""The residual networks for small images, against their papers' formulas and the checkpoints that people have."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.failures import InputShapeMismatchError
from stillhouse.contract.spec import Architecture, Resnet, Wrn
from stillhouse.models import build, count_parameters
from tests.fixtures.networks import fitted, lively

WIDE = [64, 128, 256]


@pytest.mark.parametrize(
    ("architecture", "num_parameters"),
    [
        # As HobbitLong/RepDistiller builds them for CIFAR-100.
        (Resnet(depth=20), 278_324),
        (Resnet(depth=56), 861_620),
        (Resnet(depth=110), 1_736_564),
        (Resnet(depth=8, stem=32, channels=WIDE), 1_233_540),
        (Resnet(depth=32, stem=32, channels=WIDE), 7_433_860),
        (Wrn(depth=16, widen_factor=1), 180_916),
        (Wrn(depth=16, widen_factor=2), 703_284),
        (Wrn(depth=40, widen_factor=1), 569_780),
        (Wrn(depth=40, widen_factor=2), 2_255_156),
    ],
)
def test_the_networks_of_the_literature_have_their_size(architecture: Architecture, num_parameters: int) -> None:
    assert count_parameters(build(architecture, input_shape=[3, 32, 32], num_classes=100)) == num_parameters


def test_a_resnet_follows_its_formula() -> None:
    model = lively(fitted(Resnet(depth=14, stem=3, channels=[4, 6, 8]), [2, 9, 9], num_classes=5)).double()
    inputs = torch.randn(3, 2, 9, 9, dtype=torch.float64)
    tensors = model.state_dict()
    features = norm(conv(inputs, tensors, "conv1"), tensors, "bn1").clamp(min=0)
    for stage in (1, 2, 3):
        for block in (0, 1):
            features = resnet_block(features, tensors, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1)
    expected = features.mean(dim=(2, 3)) @ tensors["fc.weight"].T + tensors["fc.bias"]
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)


def test_a_wrn_follows_its_formula() -> None:
    model = lively(fitted(Wrn(depth=16, widen_factor=1, dropout=0.3), [2, 9, 9], num_classes=5)).double()
    inputs = torch.randn(3, 2, 9, 9, dtype=torch.float64)
    tensors = model.state_dict()
    features = conv(inputs, tensors, "conv1")
    for stage in (1, 2, 3):
        for block in (0, 1):
            stride = 2 if stage > 1 and block == 0 else 1
            features = wrn_block(features, tensors, f"block{stage}.layer.{block}", stride)
    features = norm(features, tensors, "bn1").clamp(min=0)
    expected = features.mean(dim=(2, 3)) @ tensors["fc.weight"].T + tensors["fc.bias"]
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)


def resnet_block(inputs: Tensor, tensors: Mapping[str, Tensor], path: str, stride: int) -> Tensor:
    hidden = norm(conv(inputs, tensors, f"{path}.conv1", stride), tensors, f"{path}.bn1").clamp(min=0)
    outputs = norm(conv(hidden, tensors, f"{path}.conv2"), tensors, f"{path}.bn2")
    if f"{path}.downsample.0.weight" in tensors:
        shortcut = norm(conv(inputs, tensors, f"{path}.downsample.0", stride), tensors, f"{path}.downsample.1")
    else:
        shortcut = inputs
    return (outputs + shortcut).clamp(min=0)


def wrn_block(inputs: Tensor, tensors: Mapping[str, Tensor], path: str, stride: int) -> Tensor:
    activated = norm(inputs, tensors, f"{path}.bn1").clamp(min=0)
    hidden = norm(conv(activated, tensors, f"{path}.conv1", stride), tensors, f"{path}.bn2").clamp(min=0)
    outputs = conv(hidden, tensors, f"{path}.conv2")
    if f"{path}.convShortcut.weight" in tensors:
        return outputs + conv(activated, tensors, f"{path}.convShortcut", stride)
    return outputs + inputs


def conv(inputs: Tensor, tensors: Mapping[str, Tensor], path: str, stride: int = 1) -> Tensor:
    weight = tensors[f"{path}.weight"]
    return functional.conv2d(inputs, weight, stride=stride, padding=weight.shape[-1] // 2)


def norm(inputs: Tensor, tensors: Mapping[str, Tensor], path: str) -> Tensor:
    mean, var, weight, bias = (
        tensors[f"{path}.{name}"].view(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (inputs - mean) / (var + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("architecture", [Resnet(), Wrn()])
def test_neither_reads_a_table(architecture: Architecture) -> None:
    with pytest.raises(InputShapeMismatchError, match=r"\[784\]"):
        build(architecture, input_shape=[784], num_classes=10)


def test_dropout_is_that_of_the_spec() -> None:
    model = build(Wrn(depth=10, dropout=0.5), input_shape=[3, 8, 8], num_classes=10)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.5}
