"""Outputs of layers, taken while a model answers."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillhouse.contract.failures import IncompatibleLayersError, LayerNotReachedError, UnknownLayerError

NUM_NAMED = 3  # layers that a message suggests


class Tap:
    """Takes the outputs of layers, by dotted path, of the last forward pass.

    `layers` maps each path to the JSON pointer of the field that names it, for messages. Put it on before the model is
    compiled; whether it is wrapped for several processes does not matter. A copy of the model is not tapped.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, str]) -> None:
        """Raises UnknownLayerError for a path that the model has not."""
        self._pointers = layers
        self._taken: dict[str, Tensor] = {}
        unwrapped = unwrap(model)
        modules = dict(unwrapped.named_modules(remove_duplicate=False))
        for path in layers:
            if path not in modules:
                raise UnknownLayerError(_unknown(path, modules), param=layers[path])
        self._handles = [modules[path].register_forward_hook(self._hook(path, modules[path])) for path in layers]
        if layers:
            self._handles.append(unwrapped.register_forward_pre_hook(self._forgetting(unwrapped)))

    def take(self) -> dict[str, Tensor]:
        """Output of each layer in the last pass, with its graph; nothing is kept here. Of several runs the last counts.

        Raises LayerNotReachedError for a layer that the pass did not run, or that gave no tensor.
        """
        taken, self._taken = self._taken, {}
        for path, pointer in self._pointers.items():
            if path not in taken:
                raise LayerNotReachedError(
                    f"the model did not run its layer {path} when it answered, or the layer gave no tensor; choose "
                    "another layer", param=pointer,
                )
        return taken

    def shapes(self, num_items: int) -> dict[str, tuple[int, ...]]:
        """Shape of one item in the last pass, a batch of `num_items`, by path: what `Shapes` needs. Takes the outputs.

        Raises as `take` does, and IncompatibleLayersError for outputs that are not one row of numbers per item.
        """
        taken = self.take()
        for path, features in taken.items():
            if features.ndim < 2 or len(features) != num_items or not features.is_floating_point():  # noqa: PLR2004
                raise IncompatibleLayersError(
                    f"layer {path} gives {features.dtype} of shape {list(features.shape)} for {num_items} items, and "
                    "one row of real numbers for each item is needed; choose another layer", param=self._pointers[path],
                )
        return shapes_of(taken)

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str, module: nn.Module) -> Callable[[nn.Module, object, object], None]:
        def hook(ran: nn.Module, _inputs: object, output: object) -> None:
            found = first_tensor(output)
            # A deep copy of the model has this very hook too.
            if ran is module and found is not None:
                # Cloned, for what follows may write over it: `relu(inplace=True)`, `out += identity`. That costs one
                # copy of the output, which is little beside the layer's own work, and cannot be told beforehand.
                self._taken[path] = found.clone()

        return hook

    def _forgetting(self, model: nn.Module) -> Callable[[nn.Module, object], None]:
        """What an earlier pass left must not stand for a layer that this one does not reach."""
        def hook(ran: nn.Module, _inputs: object) -> None:
            if ran is model:
                self._taken.clear()

        return hook


def shapes_of(features: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of one item of each, without the batch's axis."""
    return {path: tuple(feature.shape[1:]) for path, feature in features.items()}


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, out of what torch wrapped it in to compile it or to train it in several processes."""
    if isinstance(model, DistributedDataParallel | nn.DataParallel):
        return unwrap(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return unwrap(compiled) if isinstance(compiled, nn.Module) else model


def first_tensor(output: Any) -> Tensor | None:  # noqa: ANN401 - whatever a module returns
    """The hidden state of a transformer's output, else the first tensor of a nest of tuples, lists and mappings."""
    if isinstance(output, Tensor):
        return output
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden
    parts: Iterable[Any] = output.values() if isinstance(output, Mapping) else ()
    parts = output if isinstance(output, tuple | list) else parts
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def _unknown(path: str, modules: Iterable[str]) -> str:
    named = [name for name in modules if name]
    nearest = get_close_matches(path, named, n=NUM_NAMED, cutoff=0.5) or [name for name in named if "." not in name]
    return f"the model has no layer {path}; the nearest are {', '.join(nearest[:NUM_NAMED])}"
