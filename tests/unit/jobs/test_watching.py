import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import OperationalError

from app.jobs import watching
from app.jobs.watching import BEGIN, END, KEEP_ALIVE, Frame, Watching

JOB = "job_1"


class Log:
    """A job's log in memory, that counts how often it is read."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.num_reads = 0
        self.is_broken = False
        self.page = 1000

    def add(self, count: int = 1, *, is_last: bool = False) -> None:
        for _ in range(count):
            seq = len(self.frames) + 1
            self.frames.append(Frame(seq, f"<{seq}>".encode(), is_last))

    async def read(self, _job_id: str, after: int) -> Sequence[Frame]:
        self.num_reads += 1
        await asyncio.sleep(0)
        if self.is_broken:
            raise OperationalError("select", {}, Exception("gone"))
        return self.frames[after:after + self.page]


def expected(start: int, stop: int) -> bytes:
    return b"".join(f"<{seq}>".encode() for seq in range(start, stop + 1))


async def collect(watching_: Watching, after: int = 0) -> bytes:
    return b"".join([piece async for piece in watching_.watch(JOB, after)])


async def until_watched(watchers: Watching) -> None:
    async with asyncio.timeout(10):
        while watchers.num_watched == 0:  # noqa: ASYNC110 - the watcher itself is under test
            await asyncio.sleep(0)


def test_what_was_and_what_comes_is_told_in_order_until_the_end() -> None:
    async def scenario() -> bytes:
        log = Log()
        log.add(3)
        watchers = Watching(log.read)
        seen = asyncio.create_task(collect(watchers, after=1))
        await until_watched(watchers)
        for _ in range(5):
            log.add(2)
            watchers.ring(JOB)
            await asyncio.sleep(0.01)
        log.add(is_last=True)
        watchers.ring(JOB)
        return await seen

    assert asyncio.run(scenario()) == BEGIN + expected(2, 14) + END


def test_watchers_of_one_job_share_its_reads() -> None:
    async def scenario() -> tuple[list[bytes], int]:
        log = Log()
        watchers = Watching(log.read)
        seen = [asyncio.create_task(collect(watchers)) for _ in range(200)]
        await until_watched(watchers)
        for _ in range(20):
            log.add()
            watchers.ring(JOB)
            await asyncio.sleep(0.06)
        log.add(is_last=True)
        watchers.ring(JOB)
        return await asyncio.gather(*seen), log.num_reads

    texts, num_reads = asyncio.run(scenario())
    assert set(texts) == {BEGIN + expected(1, 21) + END}
    assert num_reads <= 60


def test_a_late_watcher_gets_all_that_came_before() -> None:
    async def scenario() -> bytes:
        log = Log()
        log.page = 2
        log.add(11)
        watchers = Watching(log.read)
        first = asyncio.create_task(collect(watchers, after=9))
        await until_watched(watchers)
        late = asyncio.create_task(collect(watchers))
        log.add(is_last=True)
        watchers.ring(JOB)
        await first
        return await late

    assert asyncio.run(scenario()) == BEGIN + expected(1, 12) + END


def test_one_who_falls_behind_what_is_kept_still_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_MAX_KEPT", 3)

    async def scenario() -> bytes:
        log = Log()
        log.add(2)
        watchers = Watching(log.read)
        slow = watchers.watch(JOB, 0)
        seen = [await anext(slow), await anext(slow)]
        other = asyncio.create_task(collect(watchers))
        log.add(40)
        log.add(is_last=True)
        watchers.ring(JOB)
        await other
        seen += [piece async for piece in slow]
        return b"".join(seen)

    assert asyncio.run(scenario()) == BEGIN + expected(1, 43) + END


def test_a_lost_bell_is_late_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.05)

    async def scenario() -> bytes:
        log = Log()
        watchers = Watching(log.read)
        seen = asyncio.create_task(collect(watchers))
        await until_watched(watchers)
        log.add(is_last=True)
        return await seen

    assert asyncio.run(scenario()) == BEGIN + expected(1, 1) + END


def test_a_database_that_comes_back_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.01)

    async def scenario() -> bytes:
        log = Log()
        watchers = Watching(log.read)
        seen = asyncio.create_task(collect(watchers))
        await until_watched(watchers)
        log.is_broken = True
        num_reads = log.num_reads
        while log.num_reads < num_reads + 3:  # noqa: ASYNC110 - the reader itself is under test
            await asyncio.sleep(0.01)
        log.is_broken = False
        log.add(is_last=True)
        return await seen

    assert asyncio.run(scenario()) == BEGIN + expected(1, 1) + END


def test_silence_is_filled_and_closing_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "KEEP_ALIVE_SECONDS", 0.01)

    async def scenario() -> list[bytes]:
        watchers = Watching(Log().read)
        stream = watchers.watch(JOB, 0)
        seen = [await anext(stream) for _ in range(3)]
        watchers.close()
        return seen + [piece async for piece in stream]

    assert asyncio.run(scenario()) == [BEGIN, KEEP_ALIVE, KEEP_ALIVE]


def test_nothing_is_kept_or_read_when_all_have_left() -> None:
    async def scenario() -> tuple[int, int]:
        log = Log()
        log.add(2)
        watchers = Watching(log.read)
        stream = watchers.watch(JOB, 0)
        await anext(stream)
        await anext(stream)
        await stream.aclose()
        num_reads = log.num_reads
        watchers.ring(JOB)
        await asyncio.sleep(0.2)
        return watchers.num_watched, log.num_reads - num_reads

    assert asyncio.run(scenario()) == (0, 0)
