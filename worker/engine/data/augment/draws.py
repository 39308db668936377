"""Random numbers by counters: a draw is a function of (key, sample) only, whatever batch the sample is in."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from worker.engine.seeds import derive_seed

# SplitMix64's constants, as signed 64-bit numbers: int64 multiplication wraps just like uint64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64

NUM_DRAWS = 8  # per sample and place in the list; no transform takes more

# Of a table. A draw has 62 bits: the last 15 are the place in a table, the last 24 a float32 between 0 and 1.
# Not more than torch gives one thread at once, so that a table has the same bits whatever the number of threads.
NUM_STEPS = 2**15


def draw(ids: Tensor, keys: Tensor) -> Tensor:
    """62 random bits, int64 (*keys.shape, B), for each key and sample id (B,): SplitMix64 of a counter."""
    mixed = ids * _GOLDEN + keys[..., None]
    mixed = (mixed ^ _shift_right(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift_right(mixed, 27)) * _SECOND
    return _shift_right(mixed ^ _shift_right(mixed, 31), 2)


@lru_cache(maxsize=64)
def stream_keys(seed: int, view: int, num_places: int, device: torch.device) -> Tensor:
    """A key for each draw of each place in the list (num_places, NUM_DRAWS), int64."""
    keys = [[_stream_key(seed, view, place, number) for number in range(NUM_DRAWS)] for place in range(num_places)]
    return torch.tensor(keys, device=device)


def _stream_key(seed: int, view: int, place: int, number: int) -> int:
    # The first goes without a number, as it did when a place had no other: what was drawn once is drawn again.
    return derive_seed(seed, "augment", view, place, *([number] if number else []))


def uniform(draws: Tensor) -> Tensor:
    """Float32 in [0, 1), 2**24 values."""
    return (draws >> 38).to(torch.float32) * 2.0**-24


def between(low: float, high: float, draws: Tensor) -> Tensor:
    """Float32, uniform from `low` to `high`."""
    return uniform(draws) * (high - low) + low


def chance(draws: Tensor, probability: float) -> Tensor:
    """Float32 1 with this probability, else 0."""
    return (uniform(draws) < probability).to(torch.float32)


def tabulate(function: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """What `function` makes of the middles of NUM_STEPS equal parts of 0 to 1, in float64."""
    return function((torch.arange(NUM_STEPS, dtype=torch.float64) + 0.5) / NUM_STEPS).to(device)


def look_up(table: Tensor, draws: Tensor) -> Tensor:
    """A random row of the table for each draw."""
    return table.index_select(0, draws >> 47)


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    """Logical, where int64's own shift keeps the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
