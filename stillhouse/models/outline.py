"""A model without memory: on the meta device, where hostile widths cost nothing, and within limits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from stillhouse.contract.failures import UnbuildableModelError

# Several times as many as the largest of timm's models has; they take about a second.
MAX_MODULES = 20_000
# Tables that a model makes for itself, of positions and masks, whose size no file has to prove.
MAX_BUFFER_BYTES = 1024**3

Build = Callable[[], nn.Module]


def outline(build: Build) -> nn.Module:
    """What `build` makes, on the meta device. Moves no generator of random numbers.

    Raises UnbuildableModelError for a model that is beyond all measure.
    """
    with _limited(), torch.random.fork_rng(devices=[]):
        model = _on_meta(build)
    num_bytes = sum(buffer.nbytes for buffer in model.buffers())
    if num_bytes > MAX_BUFFER_BYTES:
        raise UnbuildableModelError(f"the model has tables of {num_bytes:,} bytes beside its weights")
    return model


def _on_meta(build: Build) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except UnbuildableModelError:
        # Some constructors calculate with tensors. They may; only parameters are kept from taking memory.
        with _parameters_on_meta():
            return build().to("meta")


@contextmanager
def _limited() -> Iterator[None]:
    """Within, a model of too many modules raises UnbuildableModelError before it fills the memory."""
    here, num_modules = threading.get_ident(), 0

    def count(_parent: nn.Module, _name: str, _child: nn.Module | None) -> None:
        nonlocal num_modules
        num_modules += threading.get_ident() == here
        if num_modules > MAX_MODULES:
            raise UnbuildableModelError(f"the model has more than {MAX_MODULES:,} modules; lower its depth")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within, every parameter that a module registers gives its memory back before it was ever written to."""
    here = threading.get_ident()

    def drop(_parent: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != here:
            return None  # as it is
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(drop)  # type: ignore[arg-type]  # it may answer
    try:
        yield
    finally:
        handle.remove()
