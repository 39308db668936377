"""A few at a time, and whoever waits for a lock holds up nobody who reads."""

import asyncio
from threading import Barrier, BrokenBarrierError, Event

import pytest

from app.http.turns import AT_A_TIME, Turns


async def met(turns: Turns, kind: str, num: int, seconds: float) -> bool:
    """Whether so many pieces of work of a kind are ever under way together."""
    barrier = Barrier(num)
    working = (getattr(turns, kind)(barrier.wait, seconds) for _ in range(num))
    told = await asyncio.gather(*working, return_exceptions=True)
    return not any(isinstance(one, BrokenBarrierError) for one in told)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_few_work_at_a_time_and_no_more(kind: str) -> None:
    async def go() -> tuple[bool, bool]:
        turns = Turns()
        return await met(turns, kind, AT_A_TIME, 30), await met(turns, kind, AT_A_TIME + 1, 1)

    assert asyncio.run(go()) == (True, False)


def test_readers_do_not_wait_for_writers() -> None:
    async def go() -> str:
        turns, lock = Turns(), Event()
        writing = [asyncio.create_task(turns.write(lock.wait, 30)) for _ in range(2 * AT_A_TIME)]
        await asyncio.sleep(0)  # all of them have begun, or wait for their turn
        found = await turns.read("found".upper)
        assert not any(task.done() for task in writing)
        lock.set()
        assert all(await asyncio.gather(*writing))
        return found

    assert asyncio.run(go()) == "FOUND"


def test_what_is_raised_comes_out() -> None:
    async def go() -> None:
        await Turns().read(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        asyncio.run(go())
