"""How much memory there is, asked before it is used: a kernel that has promised too much kills without a word."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch import nn

from stillhouse.contract.failures import OutOfMemoryError
from stillhouse.contract.spec import Architecture, Sgd, Training
from stillhouse.models import outlined

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
KIB = 1024


def available_bytes() -> int | None:
    """What this process may still allocate, by the machine and by its control group; None where nobody tells."""
    return min([*_meminfo("MemAvailable"), *_of_group()], default=None)


def installed_bytes() -> int | None:
    """What the machine has in all, or its control group is given, if that is less; None where nobody tells."""
    return min([*_meminfo("MemTotal"), *_group_limit()], default=None)


def check_memory(needed: int, what: str, param: str | None = None) -> None:
    """Raise OutOfMemoryError when `needed` bytes cannot be had."""
    available = available_bytes()
    if available is not None and needed > available:
        raise OutOfMemoryError(
            f"{what} needs about {needed:,} bytes of memory, and {available:,} are available", param=param
        )


def check_training_memory(architecture: Architecture, training: Training, *, param: str) -> None:
    """Raise OutOfMemoryError when weights, gradients, moments and kept copies of a complete architecture do not fit."""
    model = outlined(architecture)
    moments = num_moments(training)
    averages = 1 if training.ema_decay else 0
    # Beside weights and gradients: the selected weights, and those of the model that was evaluated with them.
    copies = 4 + moments + averages
    check_memory(copies * num_bytes(model), f"training a model of {num_bytes(model):,} bytes", param)


def num_moments(training: Training) -> int:
    """Values that the optimiser keeps for each weight."""
    optimizer = training.optimizer
    if isinstance(optimizer, Sgd):
        return 1 if optimizer.momentum else 0
    return 2


def num_bytes(model: nn.Module) -> int:
    """Of its parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def _meminfo(entry: str) -> Iterator[int]:
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == entry:
            yield int(value.split()[0]) * KIB


def _of_group() -> Iterator[int]:
    for limit in _group_limit():
        with suppress(OSError, ValueError):
            yield max(limit - int((CGROUP / "memory.current").read_text("ascii")), 0)


def _group_limit() -> Iterator[int]:
    with suppress(OSError, ValueError):  # no control group, or "max": no limit
        yield int((CGROUP / "memory.max").read_text("ascii"))
