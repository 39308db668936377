"""How many threads a training is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.contract.spec import Architecture
from stillhouse.models import build

# About 3 ms on one core. Below, handing work to a second thread costs more than it saves, and on a machine that is
# doing something else it costs twice the time: the threads wait for each other. Counted, not timed: it decides bits.
SMALL_STEP_FLOPS = 250e6


def count_step_flops(student: Architecture, teacher: Architecture | None, batch_size: int) -> int:
    """Floating-point operations of one step: forward, twice that to go back, and a teacher that answers each batch."""
    return 3 * count_flops(student, batch_size) + (count_flops(teacher, batch_size) if teacher else 0)


def count_flops(architecture: Architecture, batch_size: int) -> int:
    """Floating-point operations of one pass of a complete architecture, forward only."""
    shape = architecture.input_shape or ()
    with torch.device("meta"):
        model = build(architecture, input_shape=shape, num_classes=architecture.num_classes or 0)
        batch = torch.empty(2, *shape)  # one sample alone has no batch statistics
    with FlopCounterMode(display=False) as counter:
        model(batch)
    total: int = counter.get_total_flops()
    return total * batch_size // len(batch)


def num_threads_for(step_flops: int) -> int:
    """One for a small step, else as many as torch has."""
    return 1 if step_flops < SMALL_STEP_FLOPS else torch.get_num_threads()


@contextmanager
def threads_for(step_flops: int) -> Iterator[None]:
    """Within, torch computes with as many threads as the step is worth; after, with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads_for(step_flops))
    try:
        yield
    finally:
        torch.set_num_threads(before)
