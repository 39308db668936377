"""How a library is asked for a model, and what is said when it has none."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from stillhouse.contract.failures import (
    LibraryMissingError,
    StillhouseError,
    UnbuildableModelError,
    UnknownModelError,
)
from stillhouse.contract.spec import Timm, Torchvision, Transformers

MAX_REASON = 500


def library(name: str) -> Any:  # noqa: ANN401 - a module of whichever library
    """The library, imported now. Raises LibraryMissingError where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LibraryMissingError(f"this model needs {name}: pip install 'stillhouse[vision]'") from error


def check_known(name: str, known: Collection[str], library_name: str) -> None:
    """Raise UnknownModelError with the nearest names unless the library has a model of this name."""
    if name not in known:
        raise UnknownModelError(
            f"{library_name} has no image classifier called `{name}`; {nearest(name, known) or 'see its own list'}"
        )


def nearest(name: str, known: Collection[str]) -> str:
    """A question that names what was most likely meant; empty if nothing is near."""
    found = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{match}`' for match in found)}?" if found else ""


def describe_library(
    architecture: Timm | Torchvision | Transformers, *, input_shape: Sequence[int], num_classes: int  # noqa: ARG001 - as the others
) -> str:
    """In short: `timm resnet18`."""
    name = architecture.model_type if isinstance(architecture, Transformers) else architecture.name
    return f"{architecture.kind} {name}"


@contextmanager
def told_as_unbuildable(what: str) -> Iterator[None]:
    """Whatever a library finds wrong with a config is one thing to the caller."""
    try:
        yield
    except (StillhouseError, MemoryError):
        raise
    except Exception as error:
        raise UnbuildableModelError(
            f"{what} cannot be built with this config: {type(error).__name__}: {str(error)[:MAX_REASON]}"
        ) from error
