"""Models of libraries, by name and plain config: never weights, code or files from anywhere."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from stillhouse.contract.spec.families import Fitted

MAX_NUMBER = 65_536  # of a width or a depth, as everywhere in a spec
MAX_ITEMS = 64
# Neither a path nor the id of a repository on a hub can be written with these.
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")

_SCALAR_SCHEMA = {"anyOf": [
    {"type": "null"}, {"type": "boolean"}, {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
    {"type": "string", "pattern": f"^{_WORD.pattern}$"},
]}
_LIST_SCHEMA = {"type": "array", "maxItems": MAX_ITEMS, "items": _SCALAR_SCHEMA}
_VALUE_SCHEMA = {
    "anyOf": [*_SCALAR_SCHEMA["anyOf"], _LIST_SCHEMA, {**_LIST_SCHEMA, "items": _LIST_SCHEMA}]
}

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


def _check_value(value: Any, lists: int = 2) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, list) and lists and len(value) <= MAX_ITEMS:
        return [_check_value(item, lists - 1) for item in value]
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
        return value
    raise ValueError(
        f"give null, true or false, a number up to {MAX_NUMBER}, a word of letters, digits and _.-, or a list of up to "
        f"{MAX_ITEMS} of these (or of such lists)"
    )


Value = Annotated[Any, AfterValidator(_check_value), WithJsonSchema(_VALUE_SCHEMA)]
Config = dict[Key, Value]


def _without(patterns: Iterable[str], told: str) -> Callable[[Config], Config]:
    def check(config: Config) -> Config:
        for key in config:
            if any(fnmatchcase(key, pattern) for pattern in patterns):
                raise ValueError(f"`{key}` cannot be given here: {told}")
        return config

    return check


_TOLD = "weights come from an artifact and never from a hub, outputs are set by num_classes, inputs by input_shape"


def _check_is_no_place(name: Any) -> Any:  # noqa: ANN401 - before its type is known
    if isinstance(name, str) and set(name) & set(":/\\@"):
        raise ValueError("give a name from the library's own list; nothing is fetched from a hub or read from a folder")
    return name


Name = Annotated[str, BeforeValidator(_check_is_no_place), Field(max_length=128)]


class Timm(Fitted):
    """An image model of timm."""

    kind: Literal["timm"] = "timm"
    name: Name = Field(
        pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$", examples=["resnet18", "vit_tiny_patch16_224"],
        description="As `timm.list_models()` has it. A tag behind a dot is allowed, and loads no weights.",
    )
    config: Annotated[Config, AfterValidator(_without(
        ("pretrained*", "checkpoint_path", "cache_dir", "features_only", "feature_*", "out_indices", "num_classes",
         "in_chans", "scriptable", "exportable", "no_jit", "device", "dtype"), _TOLD,
    ))] = Field(
        default={}, max_length=MAX_ITEMS, description="Further keyword arguments of `timm.create_model`.",
        examples=[{"drop_path_rate": 0.1}],
    )


class Torchvision(Fitted):
    """An image classifier of torchvision."""

    kind: Literal["torchvision"] = "torchvision"
    name: Name = Field(
        pattern=r"^[a-z0-9_]+$", examples=["resnet18", "mobilenet_v3_small"],
        description="As `torchvision.models.list_models()` has it.",
    )
    config: Annotated[Config, AfterValidator(_without(
        ("pretrained*", "weights*", "progress", "num_classes", "aux_logits"), _TOLD,
    ))] = Field(
        default={}, max_length=MAX_ITEMS, description="Further keyword arguments of `torchvision.models.get_model`.",
        examples=[{"dropout": 0.1}],
    )


class Transformers(Fitted):
    """An image classifier of transformers, with random weights."""

    kind: Literal["transformers"] = "transformers"
    model_type: Name = Field(
        pattern=r"^[a-z0-9_-]+$", examples=["vit", "convnext"],
        description="As `AutoConfig.for_model` takes it.",
    )
    config: Annotated[Config, AfterValidator(_without(
        ("model_type", "architectures", "auto_map", "name_or_path", "trust_remote_code", "*backbone*", "*attn_impl*",
         "*experts_impl*", "quantization_config", "dtype", "torch_dtype", "num_labels", "id2label", "label2id",
         "problem_type", "return_dict", "use_return_dict", "output_*", "use_kernels"), _TOLD,
    ))] = Field(
        default={}, max_length=MAX_ITEMS, description="Fields of the model's config.",
        examples=[{"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "patch_size": 4}],
    )
