"""Students that are made from the teacher."""

import copy
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stillhouse.contract.failures import NonFiniteWeightsError, UnderivableStudentError, WeightsMismatchError
from stillhouse.contract.spec import (
    Architecture,
    Cnn,
    Layers,
    Mlp,
    Narrowed,
    Pruned,
    Resnet,
    Shortened,
    Timm,
    Torchvision,
    Transformers,
    Wrn,
)
from stillhouse.models import build_with, count_parameters, load_checkpoint, save_checkpoint
from stillhouse.models.bundle import Config, build_network
from tests.fixtures.networks import SMALL_VIT, fitted, lively
from worker.engine.students import Derived, derive_student, load_initial_weights
from worker.engine.students.cutting import nearest_multiple
from worker.engine.students.derived import prove_rebuildable
from worker.engine.students.shortening import blamed

RESNET = fitted(Resnet(depth=14, channels=[8, 16, 32]), [1, 8, 8])
VIT = fitted(Timm(name="vit_tiny_patch16_224", config={"depth": 2, "embed_dim": 48, "num_heads": 3}), [3, 32, 32])


def derived(student: Layers | Pruned, architecture: Architecture, teacher: nn.Module | None = None) -> Derived:
    torch.manual_seed(5)
    return derive_student(
        student, teacher or lively(architecture), architecture, torch.randn(2, *architecture.input_shape or ())
    )


def refused(student: Layers | Pruned, architecture: Architecture) -> UnderivableStudentError:
    with pytest.raises(UnderivableStudentError) as caught:
        derived(student, architecture)
    return caught.value


def model_of(found: Derived) -> nn.Module:
    assert found.weights is not None
    return build_with(found.architecture, found.weights).eval()


def macs(model: nn.Module, shape: list[int]) -> int:
    """Multiply-accumulates of one answer, of convolutions and linear layers, by their formulas."""
    counted: list[int] = []

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - of a hook
        if isinstance(module, nn.Conv2d):
            counted.append(module.weight.numel() * output.shape[2] * output.shape[3])
        elif isinstance(module, nn.Linear):
            counted.append(module.weight.numel() * output.numel() // output.shape[0] // output.shape[-1])

    handles = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(counted)


# Fewer layers


def test_the_layers_that_are_kept_answer_as_in_the_teacher() -> None:
    teacher = lively(RESNET)
    found = derived(Layers(keep={"layer1": [1], "layer3": [0]}), RESNET, teacher)
    assert found.architecture == Shortened(base=RESNET, keep={"layer1": [1], "layer3": [0]})
    assert (found.architecture.num_classes, found.architecture.input_shape) == (3, [1, 8, 8])
    without = copy.deepcopy(teacher)
    without.set_submodule("layer1.0", nn.Identity())
    without.set_submodule("layer3.1", nn.Identity())
    inputs = torch.randn(4, 1, 8, 8)
    assert torch.equal(model_of(found)(inputs), without(inputs))
    assert not torch.equal(without(inputs), teacher(inputs))
    assert found.weights is not None
    assert torch.equal(found.weights["layer1.0.conv1.weight"], teacher.get_parameter("layer1.1.conv1.weight"))


def test_the_teacher_stays_as_it_was() -> None:
    teacher = lively(RESNET).requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    derived(Layers(keep={"layer1": [1]}), RESNET, teacher)
    derived(Pruned(), RESNET, teacher)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training


def test_weights_are_left_out_where_they_are_not_wanted() -> None:
    found = derived(Layers(keep={"layer1": [1]}, initialize=False), RESNET)
    assert found.weights is None
    assert found.architecture == derived(Layers(keep={"layer1": [1]}), RESNET).architecture


@pytest.mark.parametrize(
    ("architecture", "keep"),
    [
        (VIT, {"blocks": [1]}),
        (fitted(Timm(name="resnet18"), [3, 32, 32]), {"layer2": [0]}),
        (fitted(Torchvision(name="squeezenet1_1"), [3, 32, 32]), {"features": [0, 1, 2, 3, *range(5, 13)]}),
        (fitted(Transformers(model_type="vit", config=dict(SMALL_VIT)), [1, 16, 16]), {"vit.layers": [0]}),
        (fitted(Mlp(hidden=[6, 6]), [4]), {"body": [0, 1]}),
        (fitted(Wrn(depth=16, widen_factor=1), [1, 8, 8]), {"block2.layer": [0]}),
        (Shortened(base=RESNET, keep={"layer1": [1]}), {"layer2": [0]}),
        (Narrowed(base=RESNET, widths={"layer1.0.conv1": [8, 4, 1], "layer1.0.bn1": [4], "layer1.0.conv2": [4, 8, 1]}),
         {"layer2": [0]}),
    ],
    ids=["timm vit", "timm resnet", "torchvision", "transformers", "mlp", "wrn", "shortened", "narrowed"],
)
def test_every_kind_of_model_can_lose_layers(architecture: Architecture, keep: dict[str, list[int]]) -> None:
    found = derived(Layers(keep=keep), architecture)
    assert count_parameters(model_of(found)) < count_parameters(lively(architecture))


@pytest.mark.parametrize(
    ("keep", "param", "told"),
    [
        ({"layer1": [0], "layer3": [1]}, "/student/keep/layer3", r"left out of `layer3`.*breaks in `layer3\.0\.conv1`"),
        ({"layer2": [1]}, "/student/keep/layer2", "keep the first layer of a stage"),
        ({"layer9": [0]}, "/student/keep", "no module at `layer9`; its containers are `layer1`, `layer2`"),
        ({"conv1": [0]}, "/student/keep", "has a Conv2d, not an nn.Sequential or nn.ModuleList, at `conv1`"),
        ({"layer1": [0, 2]}, "/student/keep", "`layer1` has 2 layers, 0 to 1, and no layer 2"),
    ],
)
def test_layers_that_do_not_fit_are_told_by_their_container(
    keep: dict[str, list[int]], param: str, told: str
) -> None:
    told_error = refused(Layers(keep=keep), RESNET)
    assert told_error.param == param
    with pytest.raises(UnderivableStudentError, match=told):
        raise told_error


def test_a_layer_that_breaks_outside_is_blamed_on_the_container_before_it() -> None:
    told = refused(Layers(keep={"body": [0, 1]}), fitted(Mlp(hidden=[6, 5]), [4]))
    assert told.param == "/student/keep/body"
    assert "breaks in `head`" in told.message


@pytest.mark.parametrize(
    ("ran", "container"),
    [(["", "a", "a.0", "b", "b.0", "c"], "b"), (["", "b", "b.0", "a", "a.0.conv"], "a"), (["", "ab"], "a")],
)
def test_the_last_shortened_container_is_blamed(ran: list[str], container: str) -> None:
    assert blamed(["a", "b"], ran) == container


def test_a_model_can_be_taken_apart_only_so_often() -> None:
    architecture: Architecture = RESNET
    for _ in range(8):
        architecture = Shortened(base=architecture, keep={"layer1": [0]})
    assert "at most 8 times" in refused(Layers(keep={"layer1": [0]}), architecture).message


# Fewer channels

PRUNABLE = {
    "mlp": fitted(Mlp(hidden=[64, 48]), [20], num_classes=12),
    "mlp with norm": fitted(Mlp(hidden=[64], batch_norm=True), [20]),
    "cnn": fitted(Cnn(channels=[32, 64], hidden=32), [1, 8, 8]),
    "resnet": fitted(Resnet(depth=14), [3, 16, 16]),
    "wrn": fitted(Wrn(depth=16), [3, 16, 16]),
    "timm resnet18": fitted(Timm(name="resnet18"), [3, 32, 32]),
    "torchvision resnet18": fitted(Torchvision(name="resnet18"), [3, 32, 32]),
    "depthwise": fitted(Timm(name="mobilenetv2_035"), [3, 32, 32]),
    "grouped": fitted(Timm(name="regnetx_002"), [3, 32, 32]),
    "concatenated": fitted(Torchvision(name="squeezenet1_1"), [3, 32, 32]),
    "bare parameters": fitted(Timm(name="convnext_atto"), [3, 32, 32]),
    "attention": VIT,
}


@pytest.mark.parametrize("name", PRUNABLE)
def test_a_pruned_model_has_the_wanted_size_and_its_files_give_it_back(tmp_path: Path, name: str) -> None:
    architecture = PRUNABLE[name]
    teacher, shape = lively(architecture), list(architecture.input_shape or ())
    found = derived(Pruned(ratio=0.6, round_to=4), architecture, teacher)
    pruned = model_of(found)
    assert macs(pruned, shape) / macs(teacher, shape) == pytest.approx(0.6, rel=0.05)
    share = count_parameters(pruned) / count_parameters(teacher)
    assert f"and {share:.1%} of its parameters" in found.remarks[0]
    assert isinstance(found.architecture, Narrowed)

    save_checkpoint(tmp_path / "a.safetensors", pruned, found.architecture, None)
    inputs = torch.randn(5, *shape)
    assert pruned(inputs).shape == (5, architecture.num_classes)
    assert torch.equal(load_checkpoint(tmp_path / "a.safetensors").model(inputs), pruned(inputs))
    config = Config(architecture=found.architecture).model_dump_json().encode()
    assert torch.equal(build_network(config, (tmp_path / "a.safetensors").read_bytes())(inputs), pruned(inputs))


@pytest.mark.parametrize("of", ["macs", "parameters"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_the_ratio_is_of_what_the_spec_says(of: str, ratio: float) -> None:
    architecture = fitted(Cnn(channels=[32, 64, 128]), [1, 16, 16])
    teacher = lively(architecture)
    pruned = model_of(derived(Pruned.model_validate({"ratio": ratio, "of": of}), architecture, teacher))
    measures: dict[str, Callable[[nn.Module], int]] = {
        "macs": lambda model: macs(model, [1, 16, 16]), "parameters": count_parameters
    }
    measure = measures[of]
    assert measure(pruned) / measure(teacher) == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_channels_stay_a_multiple_of_what_the_spec_says(round_to: int) -> None:
    architecture = fitted(Resnet(depth=14), [1, 8, 8])
    pruned = model_of(derived(Pruned(ratio=0.5, round_to=round_to), architecture))
    widths = {module.out_channels for module in pruned.modules() if isinstance(module, nn.Conv2d)}
    assert all(width % round_to == 0 for width in widths)
    assert round_to > 1 or any(width % 2 for width in widths)


def test_channels_that_do_nothing_go_first_and_nobody_misses_them() -> None:
    architecture = fitted(Cnn(channels=[16, 32], batch_norm=False, hidden=16), [1, 8, 8])
    teacher = lively(architecture)
    idle = {"body.0": range(1, 16, 2), "body.3": range(0, 32, 2), "body.8": range(8)}
    layers = ["body.0", "body.3", "body.8", "head"]
    with torch.no_grad():
        for name, after in pairwise(layers):
            here, there = teacher.get_submodule(name), teacher.get_submodule(after)
            for channel in idle[name]:
                here.weight[channel] = here.bias[channel] = 0  # type: ignore[operator]
                there.weight[:, channel] = 0  # type: ignore[operator]
    found = derived(Pruned(ratio=0.27, round_to=8), architecture, teacher)
    assert isinstance(found.architecture, Narrowed)
    assert found.architecture.widths == {
        "body.0": [1, 8, 1], "body.3": [8, 16, 1], "body.8": [16, 8], "head": [8, 3],
    }
    inputs = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model_of(found)(inputs), teacher(inputs), rtol=1e-5, atol=1e-5)


def test_by_batch_norm_those_go_first_that_it_scales_down_most() -> None:
    architecture = fitted(Cnn(channels=[16]), [1, 8, 8])
    teacher = lively(architecture)
    scale = teacher.get_parameter("body.1.weight")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scale[order] = torch.arange(1, 17) / 10
        teacher.get_parameter("body.0.weight")[order[8:]] *= 1e-3  # by magnitude, the others would go
    kept = order[8:].sort().values
    by_norm, by_size = (
        derived(Pruned.model_validate({"ratio": 0.5, "importance": importance}), architecture, teacher).weights or {}
        for importance in ("batch_norm", "magnitude")
    )
    assert torch.equal(by_norm["body.1.weight"], scale[kept])
    assert not torch.equal(by_size["body.1.weight"], scale[kept])


@pytest.mark.parametrize("name", ["resnet", "attention", "bare parameters"])
def test_the_same_teacher_gives_the_same_student_and_any_weights_the_same_architecture(name: str) -> None:
    architecture = PRUNABLE[name]
    one, same, other = (derived(Pruned(ratio=0.7), architecture, lively(architecture, seed)) for seed in (0, 0, 1))
    assert one.architecture == same.architecture == other.architecture
    assert one.weights is not None
    assert same.weights is not None
    assert all(torch.equal(tensor, same.weights[key]) for key, tensor in one.weights.items())


def test_attention_keeps_its_heads() -> None:
    found = derived(Pruned(ratio=0.7), VIT)
    assert isinstance(found.architecture, Narrowed)
    assert set(found.architecture.widths) == set(
        chain.from_iterable((f"blocks.{block}.mlp.fc1", f"blocks.{block}.mlp.fc2") for block in (0, 1))
    )


def test_a_student_of_a_student_of_a_student_is_made() -> None:
    first = derived(Pruned(ratio=0.7), fitted(Cnn(channels=[64, 64]), [1, 8, 8]))
    second = derived(Layers(keep={"body": [0, 1, 2, 3, 4, 5, 6, 8, 9]}), first.architecture, model_of(first))
    third = derived(Pruned(ratio=0.5), second.architecture, model_of(second))
    assert count_parameters(model_of(third)) < count_parameters(model_of(first))
    inputs = torch.randn(2, 1, 8, 8)
    assert model_of(third)(inputs).shape == (2, 3)


@pytest.mark.parametrize(
    ("ratio", "of", "round_to", "told"),
    [
        (0.05, "macs", 8, "would leave layers empty: .* is the least"),
        (0.05, "parameters", 8, "of the teacher's parameters would leave layers empty"),
        (0.75, "macs", 16, "can be pruned to 0.[0-9]+ or 1 of its .*, and not to 0.75"),
        (0.5, "macs", 64, "no layer of this teacher can lose channels while each .* a multiple of round_to 64"),
    ],
)
def test_ratios_that_cannot_be_reached_are_refused_with_those_that_can(
    ratio: float, of: str, round_to: int, told: str
) -> None:
    student = Pruned.model_validate({"ratio": ratio, "of": of, "round_to": round_to})
    error = refused(student, fitted(Cnn(channels=[16, 32]), [1, 8, 8]))
    assert error.param == "/student/ratio"
    with pytest.raises(UnderivableStudentError, match=told):
        raise error


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5"])
def test_a_model_that_counts_on_its_channels_is_refused(name: str) -> None:
    error = refused(Pruned(), fitted(Torchvision(name=name), [3, 32, 32]))
    assert error.param == "/student/kind"
    assert "counts on all of its channels" in error.message
    assert "kind layers" in error.message


@pytest.mark.parametrize(
    ("width", "share", "step", "kept"),
    [(64, 0.5, 8, 32), (64, 0.56, 8, 32), (64, 0.57, 8, 40), (64, 0.0, 8, 8), (64, 1.0, 8, 64), (6, 0.5, 8, 6),
     (20, 0.99, 8, 16), (7, 0.5, 1, 4)],
)
def test_a_layer_keeps_the_nearest_multiple_and_never_nothing(width: int, share: float, step: int, kept: int) -> None:
    assert nearest_multiple(width, share, step) == kept


@pytest.mark.parametrize("wrong", ["answer", "shape", "weights", "architecture"])
def test_what_cannot_be_built_again_from_its_files_is_refused(wrong: str) -> None:
    model, example = lively(RESNET), torch.randn(2, 1, 8, 8)
    answer, weights, architecture = model(example).detach(), dict(model.state_dict()), RESNET
    prove_rebuildable(architecture, weights, answer, example)
    if wrong == "answer":
        answer = answer * 1.01
    elif wrong == "shape":
        answer = answer[:, :2]
    elif wrong == "weights":
        weights.pop("fc.bias")
    else:
        architecture = fitted(Resnet(depth=8, channels=[8, 16, 32]), [1, 8, 8])
    with pytest.raises(UnderivableStudentError, match="again"):
        prove_rebuildable(architecture, weights, answer, example)


# Weights from a file


def test_initial_weights_are_read_like_a_teachers(tmp_path: Path) -> None:
    model = lively(RESNET)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, tmp_path / "a.pt")
    loaded = load_initial_weights(tmp_path / "a.pt", RESNET)
    assert all(torch.equal(tensor, loaded.tensors[name]) for name, tensor in model.state_dict().items())
    assert len(loaded.remarks) == 2


@pytest.mark.parametrize(
    ("name", "value", "failure"),
    [
        ("fc.weight", torch.ones(4, 32), WeightsMismatchError),
        ("fc.bias", torch.full((3,), torch.nan), NonFiniteWeightsError),
    ],
)
def test_initial_weights_that_do_not_fit_are_named(
    tmp_path: Path, name: str, value: Tensor, failure: type[Exception]
) -> None:
    save_file({**lively(RESNET).state_dict(), name: value}, tmp_path / "a.safetensors")
    with pytest.raises(failure, match=name) as caught:
        load_initial_weights(tmp_path / "a.safetensors", RESNET)
    assert caught.value.param == "/initial_weights"  # type: ignore[attr-defined]
