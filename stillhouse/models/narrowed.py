"""A model with fewer channels: the layers of a bigger one, cut to sizes that are written down."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from stillhouse.contract.failures import UnbuildableModelError

Sizes = Sequence[int]


def narrow(model: nn.Module, widths: Mapping[str, Sizes]) -> nn.Module:
    """The same model, whose named layers have these sizes; they keep the first of their values.

    Raises UnbuildableModelError for a layer that is not there, cannot be cut, or would have to grow.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for path, sizes in widths.items():
        if path in modules:
            _cut_module(modules[path], path, sizes)
        elif path in parameters:
            parent, _, name = path.rpartition(".")
            _cut(modules[parent], {name: sizes}, path)
        else:
            raise UnbuildableModelError(f"the model has no layer or parameter `{path}`")
    return model


def sizes_of(module: nn.Module) -> list[int] | None:
    """Sizes of a layer as `narrow` takes them; None for a layer that it cannot cut."""
    sizes: list[int] | None = None
    if isinstance(module, _ConvNd) and not module.transposed:
        sizes = [module.in_channels, module.out_channels, module.groups]
    elif isinstance(module, nn.Linear):
        sizes = [module.in_features, module.out_features]
    elif isinstance(module, _NormBase):
        sizes = [module.num_features]
    elif isinstance(module, nn.GroupNorm):
        sizes = [module.num_channels]
    elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        sizes = list(module.normalized_shape)
    elif isinstance(module, nn.PReLU):
        sizes = [module.num_parameters]
    return sizes


def _cut_module(module: nn.Module, path: str, sizes: Sizes) -> None:
    present = sizes_of(module)
    if present is None or len(present) != len(sizes):
        raise UnbuildableModelError(f"`{path}` is a {type(module).__name__}, which cannot be cut to {list(sizes)}")
    if isinstance(module, _ConvNd):
        _cut_convolution(module, path, *sizes)
    elif isinstance(module, nn.Linear):
        _cut(module, {"weight": [sizes[1], sizes[0]], "bias": [sizes[1]]}, path)
        module.in_features, module.out_features = sizes
    else:
        names = ("weight", "bias", "running_mean", "running_var")
        _cut(module, {name: sizes for name in names if isinstance(getattr(module, name, None), Tensor)}, path)
        _tell_width(module, path, sizes[0])


def _cut_convolution(module: _ConvNd, path: str, width_in: int, width_out: int, groups: int) -> None:
    if width_in % groups or width_out % groups:
        raise UnbuildableModelError(f"`{path}` of {width_in} and {width_out} channels cannot have {groups} groups")
    kernel = module.weight.shape[2:]
    _cut(module, {"weight": [width_out, width_in // groups, *kernel], "bias": [width_out]}, path)
    module.in_channels, module.out_channels, module.groups = width_in, width_out, groups


def _tell_width(module: nn.Module, path: str, width: int) -> None:
    if isinstance(module, nn.GroupNorm):
        if width % module.num_groups:
            raise UnbuildableModelError(f"`{path}` of {width} channels cannot have {module.num_groups} groups")
        module.num_channels = width
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (width,)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = width
    elif isinstance(module, _NormBase):
        module.num_features = width


def _cut(module: nn.Module, shapes: Mapping[str, Sizes], path: str) -> None:
    for name, shape in shapes.items():
        tensor = getattr(module, name)
        if tensor is None:
            continue
        if tensor.ndim != len(shape) or any(new > old for new, old in zip(shape, tensor.shape, strict=True)):
            raise UnbuildableModelError(
                f"`{path}` has {name} {list(tensor.shape)}, which cannot be cut to {list(shape)}"
            )
        with torch.no_grad():
            kept = tensor[tuple(slice(size) for size in shape)].clone()
        setattr(module, name, nn.Parameter(kept) if isinstance(tensor, nn.Parameter) else kept)
