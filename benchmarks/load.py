"""Closed-loop load: so many clients, each sending its next request when the last one was answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import quantiles

Request = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Load:
    """What so many clients got."""

    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, clients: int, seconds: float, latencies: list[float]) -> "Load":
        """From the seconds of each request, all made within `seconds`."""
        percentiles = quantiles(latencies, n=100)
        return cls(clients, len(latencies) / seconds, 1000 * percentiles[49], 1000 * percentiles[98])


async def load(request: Request, *, clients: int, seconds: float) -> Load:
    """Let the clients send for so long. `request` is given the client's number, and raises when it fails."""
    latencies: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_client(request, number, began + seconds, latencies) for number in range(clients)))
    return Load.of(clients, time.perf_counter() - began, latencies)


async def _client(request: Request, number: int, end: float, latencies: list[float]) -> None:
    while (began := time.perf_counter()) < end:
        await request(number)
        latencies.append(time.perf_counter() - began)


def ratio_at_equal_p99(ours: list[Load], theirs: list[Load]) -> dict[str, float]:
    """How many times as many requests we answer with no worse p99 than the peer has at its own best throughput.

    0 where no load of ours has so good a p99.
    """
    best = max(theirs, key=lambda one: one.per_second)
    within = [one.per_second for one in ours if one.p99_ms <= best.p99_ms]
    return {
        "p99_ms": best.p99_ms, "theirs_per_second": best.per_second, "ours_per_second": max(within, default=0.0),
        "ratio": max(within, default=0.0) / best.per_second,
    }
