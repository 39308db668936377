"""Structural pruning: channels that are coupled through the model go together, found by torch-pruning's graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, lcm
from typing import Any, Literal

import torch
import torch_pruning  # brings timm and torchvision along, so that a forkserver that has the engine has them too
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from stillhouse.models.narrowed import sizes_of

Importance = Literal["magnitude", "batch_norm"]

_ROOTS = [_ConvNd, nn.Linear]
_WRAPPED = (*_ROOTS, _NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU, nn.Embedding, nn.MultiheadAttention)
# By which attention tells how many heads it has: its layers cannot lose channels, since the number is written down.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "nhead", "heads")


@dataclass(frozen=True)
class Touched:
    """Where a group's channels are: sizes of a layer (see `sizes_of`), or axes of a bare parameter."""

    path: str
    places: tuple[int, ...]
    length: int  # values there for all channels of the group: more than channels where an image was flattened


@dataclass(frozen=True)
class Group:
    """Layers that lose the same channels."""

    width: int
    num_blocks: int  # that lose as many each: groups of convolutions or normalisations
    coupled: Any  # torch-pruning's own
    touched: list[Touched]

    def num_kept(self, share: float, round_to: int) -> int:
        """Channels next to `share` of the width: at least `round_to`, and all where there are no more."""
        in_each = nearest_multiple(self.width // self.num_blocks, share, self.step(round_to) // self.num_blocks)
        return self.num_blocks * in_each

    def step(self, round_to: int) -> int:
        """By how many channels it can differ."""
        return lcm(round_to, self.num_blocks)


def nearest_multiple(width: int, share: float, step: int) -> int:
    """The multiple of `step` next to `share` of the width, between one step and all."""
    return min(width, max(step, floor(share * width / step + 0.5) * step))


class Pruner:
    """Finds the groups of a model on the CPU, tells what sizes would be left, and cuts once."""

    def __init__(self, model: nn.Module, example: Tensor, outputs: Sequence[str]) -> None:
        """Without the `outputs`, paths of the layers whose width is the number of classes. May raise anything."""
        model.requires_grad_(requires_grad=True)  # the graph is autograd's
        self._places: dict[object, str] = {module: path for path, module in model.named_modules()}
        self._places |= {parameter: name for name, parameter in model.named_parameters()}
        self._whole = _whole(model)
        self._graph = torch_pruning.DependencyGraph()
        with torch.enable_grad():
            self._graph.build_dependency(
                model, example, unwrapped_parameters=_bare_parameters(model), verbose=False
            )
        untouched = _attention(model)
        found = self._graph.get_all_groups(
            ignored_layers=[model.get_submodule(path) for path in outputs], root_module_types=_ROOTS
        )
        self.groups = [
            self._group(coupled) for coupled in found
            if not any(dep.target.module in untouched for dep, _ in coupled)
        ]

    def sizes(self, kept: Sequence[int]) -> dict[str, list[int]]:
        """What is left of each layer that changes, as `narrow` takes it, when each group keeps so many channels."""
        left: dict[str, list[int]] = {}
        for group, count in zip(self.groups, kept, strict=True):
            for touched in group.touched:
                sizes = left.setdefault(touched.path, list(self._whole[touched.path]))
                for place in touched.places:
                    sizes[place] -= touched.length - touched.length * count // group.width
        return {path: sizes for path, sizes in left.items() if sizes != self._whole[path]}

    def cut(self, kept: Sequence[int], importance: Importance) -> None:
        """Take the least important channels out of the model until each group keeps so many."""
        plans = [
            (group.coupled[0].dep, _gone(group, count, importance))
            for group, count in zip(self.groups, kept, strict=True) if count < group.width
        ]
        for dep, gone in plans:  # afterwards: importance is that of the whole model
            self._graph.get_pruning_group(dep.target.module, dep.handler, gone).prune()

    def _group(self, coupled: Any) -> Group:  # noqa: ANN401 - has no types
        return Group(
            width=len(coupled[0].idxs),
            num_blocks=max(_num_blocks(dep.target.module) for dep, _ in coupled),
            coupled=coupled,
            touched=[touched for dep, indices in coupled if (touched := self._touched(dep, len(indices)))],
        )

    def _touched(self, dep: Any, length: int) -> Touched | None:  # noqa: ANN401 - has no types
        module = dep.target.module
        path = self._places.get(module)
        if path is None or path not in self._whole:
            return None
        if isinstance(module, nn.Parameter):
            return Touched(path, (dep.target.pruning_dim,), length)
        if isinstance(module, _ConvNd) and module.groups == module.out_channels > 1:
            return Touched(path, (0, 1, 2), length)
        goes_out = not isinstance(module, tuple(_ROOTS)) or not self._graph.is_out_channel_pruning_fn(dep.handler)
        return Touched(path, (0 if goes_out else 1,), length)


def _whole(model: nn.Module) -> dict[str, list[int]]:
    """Sizes of every layer and parameter."""
    sizes = {path: sizes_of(module) for path, module in model.named_modules()}
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()} | {
        path: known for path, known in sizes.items() if known is not None
    }


def _gone(group: Group, count: int, importance: Importance) -> list[int]:
    """Channels of the group's first layer that go: as many out of each of its blocks."""
    size = group.width // group.num_blocks
    scores = _scores(group.coupled, importance).view(group.num_blocks, size).mean(dim=0)
    gone = scores.argsort(stable=True)[: size - count // group.num_blocks].tolist()
    return sorted(block * size + place for block in range(group.num_blocks) for place in gone)


def _scores(coupled: Any, importance: Importance) -> Tensor:  # noqa: ANN401 - has no types
    """How much each channel matters."""
    for score in _IMPORTANCES[importance]:
        scores: Tensor | None = score(coupled)
        if scores is not None:
            return scores.cpu()
    return torch.zeros(len(coupled[0].idxs))


def _num_blocks(module: nn.Module) -> int:
    if isinstance(module, _ConvNd):
        return 1 if module.groups == module.out_channels else module.groups
    return module.num_groups if isinstance(module, nn.GroupNorm) else 1


def _bare_parameters(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Parameters of no standard layer, each with its last axis that is longer than 1.

    torch-pruning would find them itself, in the order of memory addresses, which differs between runs.
    """
    found = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            long = [axis for axis, length in enumerate(parameter.shape) if length > 1]
            if long and not isinstance(module, _WRAPPED):
                found.append((parameter, long[-1]))
    return found


def _attention(model: nn.Module) -> set[nn.Module]:
    """Every module inside the innermost modules that tell a number of heads."""
    innermost = [
        module for module in model.modules()
        if _has_heads(module) and not any(_has_heads(inner) for inner in module.modules() if inner is not module)
    ]
    return {inner for module in innermost for inner in module.modules()}


def _has_heads(module: nn.Module) -> bool:
    return any(isinstance(getattr(module, name, None), int) for name in _HEADS)


_Score = Callable[[Any], Tensor | None]
_MAGNITUDE: _Score = torch_pruning.importance.GroupMagnitudeImportance(p=2)
_IMPORTANCES: dict[Importance, tuple[_Score, ...]] = {
    "magnitude": (_MAGNITUDE,),
    "batch_norm": (torch_pruning.importance.BNScaleImportance(), _MAGNITUDE),
}
