"""How many threads a training is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stillhouse.contract.spec import Architecture
from worker.engine.flops import count_flops

# About 3 ms on one core. Below, handing work to a second thread costs more than it saves, and on a machine that is
# doing something else it costs twice the time: the threads wait for each other. Counted, not timed: it decides bits.
SMALL_STEP_FLOPS = 250e6


def count_step_flops(student: Architecture, teacher: Architecture | None, batch_size: int) -> int:
    """Floating-point operations of one step: forward, twice that to go back, and a teacher that answers each batch."""
    return batch_size * (3 * count_flops(student) + (count_flops(teacher) if teacher else 0))


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
