"""Threads for what is asked most, a few at a time: Python runs one of them, and the others take the processor from it.

Whoever waits for a database's lock holds up nobody who only reads; and neither waits for those who move bytes, who are
many, wait for disks and networks, and have the framework's own threads.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

# Enough that some wait for the database while one runs; more of them would wait for each other.
AT_A_TIME = 8

Asked = ParamSpec("Asked")
Result = TypeVar("Result")


class Turns:
    """Runs short work in threads, first come, first served."""

    def __init__(self) -> None:
        self._reading = CapacityLimiter(AT_A_TIME)
        self._writing = CapacityLimiter(AT_A_TIME)

    async def read(self, work: Callable[Asked, Result], *args: Asked.args, **kwargs: Asked.kwargs) -> Result:
        """Work that looks something up. Raises what it raises."""
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._reading)

    async def write(self, work: Callable[Asked, Result], *args: Asked.args, **kwargs: Asked.kwargs) -> Result:
        """Work that changes something. Raises what it raises."""
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._writing)
