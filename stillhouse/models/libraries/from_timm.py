"""Image models of timm."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from stillhouse.contract.spec import Timm
from stillhouse.models.libraries.asking import check_known, library, told_as_unbuildable
from stillhouse.models.residual import check_is_image


def build_timm(architecture: Timm, *, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The model with random weights, for inputs of this shape.

    A model whose input size is fixed when it is made is made for the size of the inputs. Raises UnknownModelError,
    UnbuildableModelError, InputShapeMismatchError or LibraryMissingError.
    """
    timm: Any = library("timm")
    name = architecture.name
    check_is_image(f"timm {name}", input_shape)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        check_known(base, timm.list_models(), "timm")
    if tag:
        check_known(name, timm.list_models(f"{base}.*", pretrained=True), "timm")
    with told_as_unbuildable(f"timm {name}"):
        options = {key: _hashable(value) for key, value in architecture.config.items()}
        if _has_fixed_size(timm, name, input_shape):
            options.setdefault("img_size", tuple(input_shape[1:]))
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=input_shape[0], **options
        )
    return model


def _has_fixed_size(timm: Any, name: str, input_shape: Sequence[int]) -> bool:  # noqa: ANN401 - a module
    """Whether it would be made for images of another size unless it is told."""
    made_for = timm.get_pretrained_cfg(name)
    return bool(made_for.fixed_input_size) and list(made_for.input_size[1:]) != list(input_shape[1:])


def _hashable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Tuples for lists: sizes are compared with tuples there."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value
