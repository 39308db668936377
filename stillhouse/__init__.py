"""Stillhouse: compress models by knowledge distillation, over REST.

Importing this package loads neither torch nor the server; `load` and `Client` are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.client import Client
    from stillhouse.models.bundle import load

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "load"]

_HOMES = {"Client": "stillhouse.client", "load": "stillhouse.models.bundle"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: the type depends on the name
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")
