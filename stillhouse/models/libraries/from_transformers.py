"""Image classifiers of transformers."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from stillhouse.contract.failures import UnbuildableModelError
from stillhouse.contract.spec import Transformers
from stillhouse.models.libraries.asking import check_known, library, nearest, told_as_unbuildable
from stillhouse.models.residual import check_is_image

# It would build a model of timm, with options of its own for weights; those are to be had by kind timm.
_ELSEWHERE = frozenset({"timm_wrapper"})


def build_transformers(architecture: Transformers, *, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The model with random weights, for inputs of this shape; it answers with logits, not with an output object.

    `image_size` and `num_channels` of the config are those of the inputs unless they are given. Raises
    UnknownModelError, UnbuildableModelError, InputShapeMismatchError or LibraryMissingError.
    """
    library("transformers")
    auto: Any = library("transformers.models.auto.modeling_auto")
    configs: Any = library("transformers.models.auto.configuration_auto")
    name = architecture.model_type
    check_is_image(f"transformers {name}", input_shape)
    check_known(name, set(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES) - _ELSEWHERE, "transformers")
    with told_as_unbuildable(f"transformers {name}"):
        usual = configs.CONFIG_MAPPING[name]()
        _check_fields(architecture, usual)
        options = _fitted(usual, input_shape) | architecture.config
        config = configs.AutoConfig.for_model(name, num_labels=num_classes, architectures=[], **options)
        model: nn.Module = auto.AutoModelForImageClassification.from_config(config)
    # A subclass in place of a wrapper: layers keep the paths and tensors the names that they have in checkpoints.
    model.__class__ = type(type(model).__name__, (_Logits, type(model)), {})
    return model


class _Logits(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, height, width)."""
        logits: Tensor = super().forward(pixel_values=inputs).logits
        return logits


def _check_fields(architecture: Transformers, usual: Any) -> None:  # noqa: ANN401 - a config of whichever model
    """Its configs swallow what they do not know."""
    known = set(usual.to_dict()) | set(usual.attribute_map)
    for key in architecture.config:
        if key not in known:
            raise UnbuildableModelError(
                f"the config of transformers {architecture.model_type} has no `{key}`; "
                f"{nearest(key, known) or 'see ' + type(usual).__name__}"
            )


def _fitted(usual: Any, input_shape: Sequence[int]) -> dict[str, Any]:  # noqa: ANN401 - a config of whichever model
    channels, height, width = input_shape
    fitted: dict[str, Any] = {}
    if isinstance(getattr(usual, "image_size", None), int):
        fitted["image_size"] = height if height == width else [height, width]
    elif isinstance(getattr(usual, "image_size", None), list | tuple):
        fitted["image_size"] = [height, width]
    if isinstance(getattr(usual, "num_channels", None), int):
        fitted["num_channels"] = channels
    return fitted
