"""Image classifiers of torchvision."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from stillhouse.contract.failures import InputShapeMismatchError
from stillhouse.contract.spec import Torchvision
from stillhouse.models.libraries.asking import check_known, library, told_as_unbuildable
from stillhouse.models.residual import check_is_image

COLOURS = 3
# With auxiliary heads they answer with a tuple in training. They ask to be told how they are to be initialised.
_TWO_HEADED = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


def build_torchvision(architecture: Torchvision, *, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The model with random weights, for inputs of this shape.

    Its first convolution is replaced by another unless they have 3 channels. Raises UnknownModelError,
    UnbuildableModelError, InputShapeMismatchError or LibraryMissingError.
    """
    models: Any = library("torchvision").models
    name = architecture.name
    check_is_image(f"torchvision {name}", input_shape)
    check_known(name, models.list_models(module=models), "torchvision")
    with told_as_unbuildable(f"torchvision {name}"):
        options = _size(name, input_shape) | _heads(name) | architecture.config
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if input_shape[0] != COLOURS:
        _replace_first_convolution(model, input_shape[0], name)
    return model


def _size(name: str, input_shape: Sequence[int]) -> dict[str, Any]:
    """For the models whose input size is fixed when they are made."""
    height, width = input_shape[1:]
    if name.startswith("vit_"):
        if height != width:
            raise InputShapeMismatchError(f"torchvision {name} reads square images; the inputs are {list(input_shape)}")
        return {"image_size": height}
    return {"input_size": (height, width)} if name.startswith("maxvit") else {}


def _heads(name: str) -> dict[str, Any]:
    return {"aux_logits": False} | _TWO_HEADED[name] if name in _TWO_HEADED else {}


def _replace_first_convolution(model: nn.Module, channels: int, name: str) -> None:
    found = [
        (path, module) for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == COLOURS and module.groups == 1
    ]
    if len(found) != 1:
        raise InputShapeMismatchError(
            f"torchvision {name} reads images of {COLOURS} channels and the inputs have {channels}; choose a timm "
            "model, which takes any number"
        )
    path, old = found[0]
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None, padding_mode=old.padding_mode, device=old.weight.device,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
