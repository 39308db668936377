"""Outputs of layers, taken while a model answers."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn


class Tap:
    """Takes the outputs of layers, by dotted path, of the last forward pass."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self._layers = layers
        self._taken: dict[str, Tensor] = {}
        for path in layers:
            model.get_submodule(path).register_forward_hook(self._hook(path))

    def take(self) -> Mapping[str, Tensor]:
        """The outputs since the last time."""
        taken, self._taken = self._taken, {}
        return taken

    def _hook(self, path: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._taken[path] = output

        return hook
