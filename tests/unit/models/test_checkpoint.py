import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stillhouse.contract.failures import (
    MalformedSafetensorsError,
    NonFiniteWeightsError,
    StillhouseError,
    UnknownArchitectureError,
    WeightsMismatchError,
)
from stillhouse.contract.spec import Cnn, Mlp, Normalization
from stillhouse.models import build, complete, load_checkpoint, save_checkpoint

TINY = complete(Mlp(hidden=[3]), input_shape=[4], num_classes=2)
NORMALIZATION = Normalization(mean=[0.5], std=[2.0])


def tensors_of_tiny() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in build(TINY, input_shape=[4], num_classes=2).state_dict().items()}


@pytest.mark.parametrize("architecture", [Mlp(batch_norm=True, dropout=0.1), Cnn(hidden=5)])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, architecture: Mlp | Cnn) -> None:
    model = build(architecture, input_shape=[1, 8, 8], num_classes=3)
    model(torch.randn(16, 1, 8, 8))  # moves the batch statistics
    named = complete(architecture, input_shape=[1, 8, 8], num_classes=3)
    save_checkpoint(tmp_path / "a.safetensors", model, named, NORMALIZATION)
    found = load_checkpoint(tmp_path / "a.safetensors")
    assert found.architecture == named
    assert found.normalization == NORMALIZATION
    assert (found.input_shape, found.num_classes) == ([1, 8, 8], 3)
    assert not found.model.training
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.equal(found.model(inputs), model.eval()(inputs))


def test_a_named_architecture_reads_bare_half_precision_weights(tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in tensors_of_tiny().items()}, tmp_path / "a.safetensors")
    found = load_checkpoint(tmp_path / "a.safetensors", Mlp(hidden=[3]), input_shape=[4])
    assert found.num_classes == 2
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"head.bias": None}, ["missing: head.bias"]),
        ({"extra": torch.zeros(1)}, ["not in the architecture: extra"]),
        ({"head.weight": torch.zeros(2, 7)}, ["head.weight [2, 7] instead of [2, 3]"]),
        ({"body.0.weight": None, "body.0.kernel": torch.zeros(3, 4)}, ["body.0.weight", "body.0.kernel"]),
    ],
)
def test_foreign_weights_are_refused_by_the_names_of_the_tensors(
    tmp_path: Path, change: dict[str, Tensor | None], names: list[str]
) -> None:
    tensors = {name: tensor for name, tensor in (tensors_of_tiny() | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsMismatchError) as caught:
        load_checkpoint(tmp_path / "a.safetensors", TINY)
    assert all(name in caught.value.message for name in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused_by_name(tmp_path: Path, value: float) -> None:
    tensors = tensors_of_tiny()
    tensors["body.0.bias"][1] = value
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(NonFiniteWeightsError, match=r"body\.0\.bias"):
        load_checkpoint(tmp_path / "a.safetensors", TINY)


@pytest.mark.parametrize(
    ("about", "failure"),
    [
        (None, UnknownArchitectureError),
        ("not json", MalformedSafetensorsError),
        ("[" * 100_000, MalformedSafetensorsError),
        ([], UnknownArchitectureError),
        ({"architecture": {"kind": "transformer"}}, UnknownArchitectureError),
        ({"architecture": {"kind": "mlp", "hidden": [3]}}, UnknownArchitectureError),
        (
            {"architecture": TINY.model_dump(), "normalization": {"mean": [0], "std": [0]}},
            MalformedSafetensorsError,
        ),
        # A hostile architecture of 32 layers of 65,536 units would be 128 GiB if it were built.
        (
            {"architecture": {"kind": "mlp", "hidden": [65_536] * 32, "input_shape": [4], "num_classes": 2}},
            WeightsMismatchError,
        ),
    ],
)
def test_metadata_that_does_not_tell_the_architecture_is_refused(
    tmp_path: Path, about: Any, failure: type[StillhouseError]  # noqa: ANN401 - any JSON
) -> None:
    metadata = None if about is None else {"stillhouse": about if isinstance(about, str) else json.dumps(about)}
    save_file(tensors_of_tiny(), tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(failure):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(MalformedSafetensorsError):
        load_checkpoint(tmp_path / "a.safetensors")
