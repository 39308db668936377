"""How long one answer takes on the CPU."""

import copy
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.contract.report import Latency

NUM_WARMUP_RUNS = 20
MIN_RUNS = 30
NUM_THREADS = 1
NANOSECONDS_PER_MS = 1e6


def measure_latency(
    models: Mapping[str, nn.Module],
    inputs: Tensor,
    *,
    passes: Mapping[str, Callable[[], object]] | None = None,
    num_runs: int = 300,
    max_seconds: float = 3.0,
    threads: int = NUM_THREADS,
) -> dict[str, Latency]:
    """CPU latency of one forward pass of each model on `inputs` (N, *input_shape), normalised float32; N is 1.

    `passes` are of what reads samples its own way, on as many of them.

    The models take turns run by run, so that a drift of the machine hits all alike. They may live on any device; copies
    are measured, in eval mode. Slow models get fewer than `num_runs`, but never fewer than 30, once `max_seconds` have
    passed. One thread by default: more of them wait for each other, and for whatever else the machine does.
    """
    each = {**{name: _forward(model, inputs.cpu()) for name, model in models.items()}, **(passes or {})}
    times: dict[str, list[int]] = {name: [] for name in each}
    with torch.inference_mode(), _no_collection(), _threads(threads):
        for _ in range(NUM_WARMUP_RUNS):
            _take_turns(each)
        started = perf_counter_ns()
        for run in range(num_runs):
            if run >= MIN_RUNS and perf_counter_ns() - started > max_seconds * 1e9:
                break
            for name, elapsed in _take_turns(each).items():
                times[name].append(elapsed)
    return {name: _latency(elapsed, len(inputs), threads) for name, elapsed in times.items()}


def _forward(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    twin = copy.deepcopy(model).cpu().eval()
    return lambda: twin(inputs)


def _take_turns(passes: Mapping[str, Callable[[], object]]) -> dict[str, int]:
    """Nanoseconds of one pass of each model."""
    elapsed = {}
    for name, forward in passes.items():
        started = perf_counter_ns()
        forward()
        elapsed[name] = perf_counter_ns() - started
    return elapsed


def _latency(elapsed: list[int], batch_size: int, threads: int) -> Latency:
    p50, p95 = np.percentile(elapsed, [50, 95]) / NANOSECONDS_PER_MS
    return Latency(
        device="cpu", batch_size=batch_size, threads=threads, num_runs=len(elapsed),
        p50_ms=round(float(p50), 6), p95_ms=round(float(p95), 6),
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection in the middle of a run would be charged to whichever model was on."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Torch's threads for a while; training and parity go on with the number that they had."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
