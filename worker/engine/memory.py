"""How much memory there is, asked before it is used: a kernel that has promised too much kills without a word."""

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from stillhouse.contract.failures import OutOfMemoryError
from stillhouse.contract.spec import Architecture, Training
from stillhouse.models import outlined

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
KIB = 1024


def available_bytes() -> int | None:
    """What this process may still allocate, by the machine and by its control group; None where nobody tells."""
    return min([*_of_machine(), *_of_group()], default=None)


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
    moments = 1 if training.optimizer.kind == "sgd" else 2
    averages = 1 if training.ema_decay else 0
    # Beside weights and gradients: the selected weights, and those of the model that was evaluated with them.
    copies = 4 + moments + averages
    check_memory(copies * num_bytes(model), f"training a model of {num_bytes(model):,} bytes", param)


def num_bytes(model: nn.Module) -> int:
    """Of its parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def _of_machine() -> Iterator[int]:
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * KIB


def _of_group() -> Iterator[int]:
    try:
        limit = (CGROUP / "memory.max").read_text("ascii").strip()
        used = int((CGROUP / "memory.current").read_text("ascii"))
    except (OSError, ValueError):
        return
    if limit != "max":
        yield max(int(limit) - used, 0)
