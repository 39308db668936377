"""Batch normalisation folded into convolutions: the same answers from a network without it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stillhouse.contract.spec import Architecture, Normalization
from stillhouse.models.preprocessing import Preprocessing
from stillhouse.models.registry import build_complete
from worker.engine.teachers import NetworkTeacher, folded

SHAPE = [3, 12, 12]
ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def teacher(words: dict[str, Any]) -> NetworkTeacher:
    """A teacher whose normalisations have seen something."""
    torch.manual_seed(0)
    architecture = ARCHITECTURE.validate_python({"num_classes": 5, "input_shape": SHAPE, **words})
    model = build_complete(architecture)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(5):
            model(2 * torch.randn(16, *SHAPE) + 1)
    read = Preprocessing(
        input_shape=(3, 12, 12), layout="chw", dtype="float32",
        normalization=Normalization(scale=1.0, mean=[0.0], std=[1.0]),
    )
    return NetworkTeacher(model.eval(), architecture, read)


def num_normalizations(model: nn.Module) -> int:
    """How many batch normalisations it has."""
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ({"kind": "cnn", "channels": [4, 8]}, 0),
        ({"kind": "cnn", "channels": [4], "blocks_per_stage": 2}, 0),
        ({"kind": "resnet", "depth": 8}, 0),
        # It normalises before each convolution: only the ones between two convolutions of a block can go.
        ({"kind": "wrn", "depth": 10, "widen_factor": 1}, 4),
    ],
)
def test_a_folded_teacher_answers_alike(words: dict[str, Any], left: int) -> None:
    whole = teacher(words)
    before = num_normalizations(whole.module)
    images = torch.randn(7, *SHAPE)
    expected = whole.answer(images)
    light = folded(whole)
    torch.testing.assert_close(light.answer(images), expected, rtol=1e-4, atol=1e-5)
    assert light.module is not None
    assert num_normalizations(light.module) == left < before
    assert num_normalizations(whole.module) == before
    torch.testing.assert_close(whole.answer(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("words", [{"kind": "mlp"}, {"kind": "torchvision", "name": "resnet18"}])
def test_other_families_are_left_as_they_are(words: dict[str, Any]) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    whole = replace(teacher({"kind": "mlp"}), module=layers, architecture=ARCHITECTURE.validate_python(words))
    assert folded(whole) is whole
