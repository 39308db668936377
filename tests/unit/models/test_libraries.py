"""Models of libraries: what is asked for, what is refused, and what nobody has to ask for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from stillhouse.contract.failures import (
    InputShapeMismatchError,
    LibraryMissingError,
    UnbuildableModelError,
    UnknownModelError,
)
from stillhouse.contract.spec import Architecture, Timm, Torchvision, Transformers
from stillhouse.models import build, outlined
from tests.fixtures.networks import SMALL_VIT, fitted

ROOT = Path(__file__).parents[3]
ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)
VIT = Transformers(model_type="vit", config=dict(SMALL_VIT))


def built(architecture: Architecture, *shape: int) -> nn.Module:
    return build(architecture, input_shape=shape, num_classes=4)


def module(model: nn.Module, path: str, kind: type[nn.Module]) -> Any:  # noqa: ANN401 - its attributes are looked at
    found = model.get_submodule(path)
    assert isinstance(found, kind)
    return found


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (Timm(name="resnet81"), "did you mean `resnet18`"),
        (Timm(name="resnet18.a1_in1"), "did you mean `resnet18.a1_in1k`"),
        (Timm(name="qqqqqqqq"), "timm has no image classifier called `qqqqqqqq`; see its own list"),
        (Torchvision(name="mobilenet_v3_smal"), "did you mean `mobilenet_v3_small`"),
        (Torchvision(name="fasterrcnn_resnet50_fpn"), "torchvision has no image classifier"),
        (Transformers(model_type="convnex"), "did you mean `convnext`"),
        (Transformers(model_type="bert"), "transformers has no image classifier"),
        (Transformers(model_type="timm_wrapper"), "transformers has no image classifier"),
    ],
)
def test_a_name_that_the_library_lacks_is_told_with_the_nearest(architecture: Architecture, told: str) -> None:
    with pytest.raises(UnknownModelError, match=told):
        built(architecture, 3, 32, 32)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (Timm(name="resnet10t", config={"dropout": 0.1}), "timm resnet10t cannot be built.*dropout"),
        (Torchvision(name="squeezenet1_1", config={"dropuot": 0.1}), "torchvision squeezenet1_1 .*dropuot"),
        (Transformers(model_type="vit", config={"hiden_size": 24}), "no `hiden_size`; did you mean `hidden_size`"),
        (Transformers(model_type="vit", config={"hidden_act": "rleu"}), "transformers vit cannot be built.*rleu"),
        (Timm(name="vit_tiny_patch16_224", config={"depth": 65_000}), "more than 20,000 modules"),
    ],
)
def test_a_config_that_the_library_refuses_is_told_in_its_words(architecture: Architecture, told: str) -> None:
    with pytest.raises(UnbuildableModelError, match=told):
        outlined(fitted(architecture, [3, 32, 32]))


def test_a_place_in_a_names_stead_is_told_as_one() -> None:
    with pytest.raises(ValidationError, match="nothing is fetched from a hub"):
        ARCHITECTURE.validate_python({"kind": "timm", "name": "hf-hub:timm/resnet18"})


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "timm", "name": "hf-hub:timm/resnet18.a1_in1k"},
        {"kind": "timm", "name": "hf_hub:resnet18"},
        {"kind": "timm", "name": "local-dir:/etc"},
        {"kind": "timm", "name": "timm/resnet18"},
        {"kind": "timm", "name": "../resnet18"},
        {"kind": "timm", "name": "resnet18", "config": {"pretrained": True}},
        {"kind": "timm", "name": "resnet18", "config": {"pretrained_cfg": "x"}},
        {"kind": "timm", "name": "resnet18", "config": {"checkpoint_path": "weights.pt"}},
        {"kind": "timm", "name": "resnet18", "config": {"features_only": True}},
        {"kind": "timm", "name": "resnet18", "config": {"num_classes": 3}},
        {"kind": "torchvision", "name": "resnet18", "config": {"weights": "DEFAULT"}},
        {"kind": "torchvision", "name": "googlenet", "config": {"aux_logits": True}},
        {"kind": "torchvision", "name": "https://example.org"},
        {"kind": "transformers", "model_type": "google/vit-base-patch16-224"},
        {"kind": "transformers", "model_type": "vit", "config": {"_name_or_path": "x"}},
        {"kind": "transformers", "model_type": "vit", "config": {"name_or_path": "x"}},
        {"kind": "transformers", "model_type": "vit", "config": {"attn_implementation": "kernels-community"}},
        {"kind": "transformers", "model_type": "vit", "config": {"trust_remote_code": True}},
        {"kind": "transformers", "model_type": "vit", "config": {"auto_map": "x"}},
        {"kind": "transformers", "model_type": "vit", "config": {"use_timm_backbone": True}},
        {"kind": "transformers", "model_type": "vit", "config": {"quantization_config": "x"}},
        {"kind": "transformers", "model_type": "vit", "config": {"hidden_act": "org/kernel"}},
        {"kind": "timm", "name": "resnet18", "config": {"act_layer": "os:system"}},
        {"kind": "timm", "name": "resnet18", "config": {"width": 10**12}},
        {"kind": "timm", "name": "resnet18", "config": {"width": float("inf")}},
        {"kind": "timm", "name": "resnet18", "config": {"layers": [[[1]]]}},
        {"kind": "timm", "name": "resnet18", "config": {"layers": [1] * 65}},
        {"kind": "timm", "name": "resnet18", "config": {"layers": {"a": 1}}},
    ],
)
def test_nothing_in_a_spec_reaches_for_a_hub_a_file_or_code(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ARCHITECTURE.validate_python(section)


@pytest.mark.parametrize(
    ("architecture", "shape", "path", "kind"),
    [
        (Timm(name="resnet10t"), (5, 32, 32), "conv1.0", nn.Conv2d),
        (Torchvision(name="squeezenet1_1"), (5, 32, 32), "features.0", nn.Conv2d),
        (Torchvision(name="vit_b_32"), (1, 32, 32), "conv_proj", nn.Conv2d),
        (VIT, (2, 32, 32), "vit.embeddings.patch_embeddings.projection", nn.Conv2d),
    ],
)
def test_the_first_layer_reads_as_many_channels_as_the_inputs_have(
    architecture: Architecture, shape: tuple[int, ...], path: str, kind: type[nn.Module]
) -> None:
    model = built(architecture, *shape)
    assert module(model, path, kind).in_channels == shape[0]
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, 4)


def test_a_replaced_first_layer_keeps_everything_but_its_channels() -> None:
    model, usual = (built(Torchvision(name="resnet18"), channels, 32, 32) for channels in (1, 3))
    new, old = (module(each, "conv1", nn.Conv2d) for each in (model, usual))
    assert (new.kernel_size, new.stride, new.padding, new.bias) == (old.kernel_size, old.stride, old.padding, old.bias)
    # He's initialisation by fan-out does not ask how many channels come in.
    assert new.weight.std().item() == pytest.approx(old.weight.std().item(), rel=0.1)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        (Timm(name="vit_tiny_patch16_224", config={"depth": 1}), (3, 48, 32)),
        (Torchvision(name="vit_b_32"), (3, 64, 64)),
        (VIT, (3, 24, 16)),
        (Torchvision(name="swin_t"), (3, 40, 48)),
    ],
)
def test_a_model_of_fixed_size_is_made_for_the_size_of_the_inputs(
    architecture: Architecture, shape: tuple[int, ...]
) -> None:
    assert built(architecture, *shape).eval()(torch.zeros(1, *shape)).shape == (1, 4)


def test_a_size_that_the_config_gives_stands() -> None:
    config = {"depth": 1, "img_size": [64, 64]}
    model = built(Timm(name="vit_tiny_patch16_224", config=config), 3, 32, 32)
    assert model.get_parameter("pos_embed").shape[1] == 1 + 16


def test_a_size_that_a_model_cannot_have_is_told() -> None:
    with pytest.raises(InputShapeMismatchError, match="square"):
        built(Torchvision(name="vit_b_32"), 3, 64, 32)
    with pytest.raises(InputShapeMismatchError, match="reads images"):
        built(Timm(name="resnet10t"), 784)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_with_auxiliary_heads_are_made_without(name: str) -> None:
    model = built(Torchvision(name=name), 3, 96, 96).train()
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 4)


def test_layers_keep_the_paths_that_their_library_gives_them() -> None:
    assert "vit.layers.1" in dict(built(VIT, 1, 32, 32).named_modules())
    assert "layer1.0.conv2" in dict(built(Timm(name="resnet10t"), 3, 32, 32).named_modules())
    assert "features.12" in dict(built(Torchvision(name="squeezenet1_1"), 3, 32, 32).named_modules())


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_library_that_is_missing_is_told_with_what_installs_it(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    architectures: dict[str, Architecture] = {
        "timm": Timm(name="resnet10t"), "torchvision": Torchvision(name="resnet18"), "transformers": VIT,
    }
    with pytest.raises(LibraryMissingError, match=rf"needs {library}: pip install 'stillhouse\[vision\]'"):
        built(architectures[library], 3, 32, 32)


def test_no_library_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, stillhouse.models.bundle; from stillhouse.contract.spec import Mlp;"
        "stillhouse.models.build(Mlp(), input_shape=[4], num_classes=2);"
        "print(*{'timm', 'torchvision', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
