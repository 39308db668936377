"""A model with fewer layers."""

from collections.abc import Mapping, Sequence

from torch import nn

from stillhouse.contract.failures import UnbuildableModelError


def shorten(model: nn.Module, keep: Mapping[str, Sequence[int]]) -> nn.Module:
    """The same model, of whose named containers only these layers are left. Raises UnbuildableModelError."""
    containers = {path: container(model, path) for path in keep}  # all found before any layer gets another number
    for path, indices in keep.items():
        children = containers[path]._modules  # noqa: SLF001 - neither kind of container can drop layers otherwise
        names = _kept_names(list(children), indices, path)
        layers = {new: children[old] for old, new in names.items()}
        children.clear()
        children.update(layers)
    return model


def container(model: nn.Module, path: str) -> nn.Sequential | nn.ModuleList:
    """The container at a dotted path. Raises UnbuildableModelError, with the paths of those that there are."""
    found = dict(model.named_modules()).get(path)
    if isinstance(found, nn.Sequential | nn.ModuleList):
        return found
    what = "has no module" if found is None else f"has a {type(found).__name__}, not an nn.Sequential or nn.ModuleList,"
    known = [name for name, module in model.named_modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    raise UnbuildableModelError(
        f"the model {what} at `{path}`; its containers are {', '.join(f'`{name}`' for name in known[:20]) or 'none'}"
    )


def _kept_names(names: Sequence[str], indices: Sequence[int], path: str) -> dict[str, str]:
    """Name of each layer that is kept, before and after. Layers that are numbered are numbered anew."""
    if indices[-1] >= len(names):
        raise UnbuildableModelError(
            f"`{path}` has {len(names)} layers, 0 to {len(names) - 1}, and no layer {indices[-1]}"
        )
    is_numbered = list(names) == [str(number) for number in range(len(names))]
    kept = [names[index] for index in indices]
    return {old: str(number) if is_numbered else old for number, old in enumerate(kept)}
