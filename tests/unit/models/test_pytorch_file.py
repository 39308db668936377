"""Checkpoints as PyTorch saves them, in the shapes that training code gives them."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillhouse.contract.failures import (
    MalformedPytorchError,
    NonFiniteWeightsError,
    UnknownArchitectureError,
    WeightsMismatchError,
)
from stillhouse.contract.spec import Mlp
from stillhouse.models import build_complete, load_checkpoint, load_weights
from tests.fixtures.networks import fitted

TINY = fitted(Mlp(hidden=[3]), [4])


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_complete(TINY).state_dict())


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def test_plain_weights_come_back_bit_for_bit(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    found = load_checkpoint(saved(tmp_path, OrderedDict(weights)), TINY)
    assert found.remarks == []
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.model.state_dict().items())
    assert not found.model.training


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "model_ema"])
def test_weights_under_a_usual_key_are_found_and_told(tmp_path: Path, weights: dict[str, Tensor], key: str) -> None:
    path = saved(tmp_path, {"epoch": 3, key: weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}})
    found = load_checkpoint(path, TINY)
    assert found.remarks == [f"the weights under the key `{key}` were taken"]
    assert torch.equal(found.model.get_parameter("head.weight"), weights["head.weight"])


def test_the_plain_weights_are_preferred_to_their_average(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    average = {name: tensor + 1 for name, tensor in weights.items()}
    found = load_checkpoint(saved(tmp_path, {"model_ema": average, "model": weights}), TINY)
    assert found.remarks == ["the weights under the key `model` were taken; `model_ema` beside it was not"]
    assert torch.equal(found.model.get_parameter("head.weight"), weights["head.weight"])


def test_everything_that_was_recognised_is_told(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    nested = {f"module.{name}": tensor for name, tensor in weights.items()} | {"epoch": 7}
    loaded = load_weights(saved(tmp_path, {"state_dict": nested, "best": 0.9}), TINY)
    assert loaded.remarks == [
        "the weights under the key `state_dict` were taken",
        "beside `state_dict`, these are no tensors: epoch",
        "the prefix `module.` was removed from the names of the tensors",
    ]
    assert all(torch.equal(loaded.tensors[name], weights[name]) for name in weights)


def test_half_precision_parameters_and_views_become_weights_of_their_own(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    odd = {name: nn.Parameter(tensor.half()) for name, tensor in weights.items()}
    odd["head.weight"] = nn.Parameter(torch.ones(1).half().expand(3, 3))
    found = load_weights(saved(tmp_path, odd), TINY).tensors
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert torch.equal(build_and_load(found).get_parameter("head.weight"), torch.ones(3, 3))


def build_and_load(tensors: dict[str, Tensor]) -> nn.Module:
    model = build_complete(TINY)
    model.load_state_dict(tensors)
    return model


def test_a_file_that_is_written_over_later_does_not_change_the_model(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = saved(tmp_path, weights)
    model = load_checkpoint(path, TINY).model
    before = model.get_parameter("head.weight").clone()
    with path.open("r+b") as file:  # it is mapped while it is read
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(model.get_parameter("head.weight"), before)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(3)], "it holds a list"),
        (torch.ones(3), "it holds a Tensor"),
        ({"epoch": 3, "args": {"lr": 0.1}}, "its keys are epoch, args"),
        ({}, "no weights"),
        ({"state_dict": {"a": 1}}, "its keys are state_dict"),
        ({0: torch.ones(3)}, "its keys are 0"),
        ({"w": torch.ones(3, dtype=torch.complex64)}, "no weights"),
        ({"w": torch.eye(3).to_sparse()}, "no weights"),
        ({"w": torch.ones(3, device="meta")}, "no weights"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_a_file_without_weights_by_name_is_refused(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(WeightsMismatchError, match=told):
        load_checkpoint(saved(tmp_path, content), TINY)


def test_a_tensor_that_claims_more_than_it_holds_costs_nothing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    # 2**60 values of one that is stored: nobody may copy it before its shape is known to be wrong.
    weights["head.weight"] = torch.ones(1).half().expand(2**30, 2**30)
    with pytest.raises(WeightsMismatchError, match=r"head\.weight \[1073741824, 1073741824\] instead of \[3, 3\]"):
        load_checkpoint(saved(tmp_path, weights), TINY)


def test_broken_weights_are_refused_by_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    weights["head.bias"] = torch.tensor([1.0, torch.nan, 1.0])
    with pytest.raises(NonFiniteWeightsError, match=r"head\.bias"):
        load_checkpoint(saved(tmp_path, weights), TINY)


def test_it_needs_an_architecture(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    with pytest.raises(UnknownArchitectureError):
        load_checkpoint(saved(tmp_path, weights), input_shape=[4])


class Bomb:
    """Unpickled, it makes the file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.target}",))


def damage(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(content)


def zip_of(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_a_bomb_does_not_go_off(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    target = tmp_path / "made"
    path = saved(tmp_path, {**weights, "bomb": Bomb(target)})
    with pytest.raises(MalformedPytorchError, match=r"it imports posix\.system\. Save") as caught:
        load_checkpoint(path, TINY)
    assert "weights_only" not in caught.value.message
    path.write_bytes(zip_of({"a/data.pkl": pickle.dumps(Bomb(target), 2), "a/version": b"3"}))
    with pytest.raises(MalformedPytorchError):
        load_checkpoint(path, TINY)
    assert not target.exists()


def test_a_whole_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MalformedPytorchError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load_checkpoint(saved(tmp_path, build_complete(TINY)), TINY)


@pytest.mark.parametrize("content", [
    b"PK\x03\x04", zip_of({"x.npy": b"1"}), zip_of({"a/data.pkl": b""}), zip_of({"a/data.pkl": b"\x80\x02K\x01"}),
    zip_of({"a/data.pkl": b"\x80\x02\x85R.", "a/version": b"3"}),
])
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MalformedPytorchError):
        load_checkpoint(tmp_path / "a.pt", TINY)


def test_a_damaged_file_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = saved(tmp_path, weights)
    whole = path.read_bytes()
    for end in range(4, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(MalformedPytorchError):
            load_checkpoint(path, TINY)
