"""Which tensor is which, and what is said when they do not belong together."""

import pytest
import torch
from torch import Tensor, nn

from stillhouse.contract.failures import NonFiniteWeightsError, WeightsMismatchError
from stillhouse.contract.spec import Cnn, Resnet, Torchvision
from stillhouse.models import build_complete, check_weights
from stillhouse.models.weights import recognize
from tests.fixtures.networks import fitted

CNN = fitted(Cnn(channels=[4]), [1, 8, 8])


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def model() -> nn.Module:
    return build_complete(CNN)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.backbone.module."]
)
def test_a_prefix_goes_where_the_names_then_match(model: nn.Module, prefix: str) -> None:
    tensors = tensors_of(model)
    found = recognize(model, {prefix + name: tensor for name, tensor in tensors.items()})
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert found.remarks == [f"the prefix `{prefix}` was removed from the names of the tensors"]


def test_a_prefix_that_is_part_of_the_models_own_names_stays() -> None:
    wrapped = nn.ModuleDict({"model": nn.Linear(2, 2)})
    tensors = tensors_of(wrapped)
    assert recognize(wrapped, tensors).tensors == tensors
    assert recognize(wrapped, tensors).remarks == []


def test_a_prefix_of_which_nothing_is_known_stays(model: nn.Module) -> None:
    found = recognize(model, {f"student.{name}": tensor for name, tensor in tensors_of(model).items()})
    assert all(name.startswith("student.") for name in found.tensors if not name.endswith("num_batches_tracked"))
    with pytest.raises(WeightsMismatchError, match="No name is in common"):
        check_weights(nn.Linear(2, 2), found.tensors)


def test_tensors_beside_the_prefixed_ones_are_named(model: nn.Module) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in tensors_of(model).items()}
    found = recognize(model, {**tensors, "criterion.weight": torch.ones(3)})
    with pytest.raises(WeightsMismatchError, match=r"not in the architecture: criterion\.weight\. The file has layers"):
        check_weights(model, found.tensors)


def test_a_prefix_whose_removal_would_make_two_tensors_one_stays(model: nn.Module) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in tensors_of(model).items()}
    found = recognize(model, {**tensors, "head.bias": torch.ones(3)})
    with pytest.raises(WeightsMismatchError, match=r"not in the architecture: module\."):
        check_weights(model, found.tensors)


def test_what_profilers_left_is_left_out(model: nn.Module) -> None:
    found = recognize(model, {**tensors_of(model), "total_ops": torch.ones(1), "body.0.total_params": torch.ones(1)})
    check_weights(model, found.tensors)
    (remark,) = found.remarks
    assert "total_ops, body.0.total_params" in remark


def test_counters_of_batches_that_old_files_lack_begin_at_zero(model: nn.Module) -> None:
    tensors = {name: tensor for name, tensor in tensors_of(model).items() if not name.endswith("num_batches_tracked")}
    found = recognize(model, tensors)
    check_weights(model, found.tensors)
    assert found.tensors["body.1.num_batches_tracked"] == 0
    assert "1 counters of batches" in found.remarks[0]


def test_a_table_that_the_model_makes_itself_is_left_out() -> None:
    swin = build_complete(fitted(Torchvision(name="swin_t"), [3, 32, 32]))
    module = swin.get_submodule("features.1.0.attn")
    index = module.get_buffer("relative_position_index")
    module.register_buffer("relative_position_index", index, persistent=False)
    found = recognize(swin, {**tensors_of(swin), "features.1.0.attn.relative_position_index": index})
    check_weights(swin, found.tensors)
    assert "relative_position_index" in found.remarks[0]


GUESSES = {
    "the number of classes": (
        fitted(Cnn(channels=[4]), [1, 8, 8], num_classes=7), CNN,
        "The last layer has 7 outputs, not 3: set num_classes",
    ),
    "the channels": (fitted(Cnn(channels=[4]), [3, 8, 8]), CNN, "The first layer reads inputs of 3, and these have 1"),
    "the width": (fitted(Cnn(channels=[8]), [1, 8, 8]), CNN, "another width or variant"),
    "a shallower model": (
        fitted(Resnet(depth=8), [1, 8, 8]), fitted(Resnet(depth=14), [1, 8, 8]), "layers that the file lacks",
    ),
    "a deeper model": (
        fitted(Resnet(depth=14), [1, 8, 8]), fitted(Resnet(depth=8), [1, 8, 8]), "layers that the architecture lacks",
    ),
    "another family": (fitted(Resnet(depth=8), [1, 8, 8]), CNN, "No name is in common"),
    "another head": (
        fitted(Cnn(channels=[4], hidden=5), [1, 8, 8]), fitted(Cnn(channels=[4, 4]), [1, 8, 8]), "Names differ on both",
    ),
    "the size of the images": (
        fitted(Torchvision(name="vit_b_32"), [3, 64, 64]), fitted(Torchvision(name="vit_b_32"), [3, 32, 32]),
        "images of another size",
    ),
}


@pytest.mark.parametrize("case", GUESSES)
def test_the_cause_of_a_mismatch_is_guessed(case: str) -> None:
    trained, named, guess = GUESSES[case]
    with pytest.raises(WeightsMismatchError, match=guess):
        check_weights(build_complete(named), build_complete(trained).state_dict())


def test_a_long_list_of_names_is_cut(model: nn.Module) -> None:
    with pytest.raises(WeightsMismatchError, match=r"missing: .* and 3 more; not in the architecture: other"):
        check_weights(model, {"other": torch.ones(1)})


def test_whole_numbers_are_finite_and_broken_floats_are_named(model: nn.Module) -> None:
    tensors = tensors_of(model)
    tensors["body.1.running_var"][2] = torch.inf
    with pytest.raises(NonFiniteWeightsError, match=r"body\.1\.running_var"):
        check_weights(model, tensors)
