"""Lets many watch a job live. Watchers of one job share its reads: each event is read and written out once.

The database is the truth: a bell only says when to look, and once a second somebody looks anyway.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.jobs import service
from app.kit.database import Database

POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
# Bells that ring closer together than this are heard as one.
_GAP_SECONDS = 0.05
_PAGE = 500
_MAX_KEPT = 2000

BEGIN = b"retry: 3000\n"
KEEP_ALIVE = b": still here\n"
END = b"event: end\ndata: {}\n\n"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """An event as it is sent."""

    seq: int
    content: bytes
    is_last: bool


Read = Callable[[str, int], Awaitable[Sequence[Frame]]]


@dataclass
class _Feed:
    """The newest part of one job's log, for all who watch it now."""

    job_id: str
    seq: int
    num_watchers: int = 0
    frames: list[Frame] = field(default_factory=list)
    rung: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def extend(self, frames: Sequence[Frame]) -> None:
        """Add what is new, and wake everybody."""
        self.frames = [*self.frames, *frames][-_MAX_KEPT:]
        self.seq = frames[-1].seq
        self.wake()

    def wake(self) -> None:
        """Have every watcher look."""
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, seq: int) -> Sequence[Frame] | None:
        """What comes after a place in the log; None where that is no longer (or not) kept."""
        begin = self.frames[0].seq - 1 if self.frames else self.seq
        return None if seq < begin else self.frames[seq - begin:]


class Watching:
    """Everybody who watches a job through this process. Belongs to one event loop."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._feeds: dict[str, _Feed] = {}
        self._is_closing = False

    @property
    def num_watched(self) -> int:
        """Jobs that somebody watches now."""
        return len(self._feeds)

    @property
    def num_watchers(self) -> int:
        """Streams that are open now, and requests that wait for the end of a job."""
        return sum(feed.num_watchers for feed in list(self._feeds.values()))

    @property
    def is_closing(self) -> bool:
        """Whether nobody is to wait any longer."""
        return self._is_closing

    def ring(self, job_id: str) -> None:
        """Something may be new in this job's log."""
        feed = self._feeds.get(job_id)
        if feed is not None:
            feed.rung.set()

    def close(self) -> None:
        """Let every stream end soon; clients come back to another process, or when this one is up again."""
        self._is_closing = True
        for feed in self._feeds.values():
            feed.wake()

    async def watch(self, job_id: str, after: int) -> AsyncGenerator[bytes]:
        """The job's log after a place in it, as server-sent events, until the job ends."""
        yield BEGIN
        seq = after
        async with self._joined(job_id, after) as feed:
            while not self._is_closing:
                changed = feed.changed
                frames = feed.after(seq)
                if frames is None:
                    frames = await self._read(job_id, seq)
                if frames:
                    yield b"".join(frame.content for frame in frames)
                    seq = frames[-1].seq
                    if frames[-1].is_last:
                        yield END
                        return
                elif not await _happens(changed, KEEP_ALIVE_SECONDS):
                    yield KEEP_ALIVE

    async def wait_for_end(self, job_id: str, seconds: float) -> None:
        """Return when the job has ended, or after so many seconds. Holds no thread and no connection meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), contextlib.aclosing(self.watch(job_id, 0)) as log_of_job:
                async for _ in log_of_job:
                    pass

    async def wait_for_news(self, job_id: str, after: int, seconds: float) -> None:
        """Return when the job's log goes on after this place, after so many seconds, or when all is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._joined(job_id, after) as feed:
                while feed.seq <= after and not self._is_closing:
                    await feed.changed.wait()

    @contextlib.asynccontextmanager
    async def _joined(self, job_id: str, after: int) -> AsyncIterator[_Feed]:
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = _Feed(job_id, after)
            feed.task = asyncio.create_task(self._follow(feed))
        feed.num_watchers += 1
        try:
            yield feed
        finally:
            feed.num_watchers -= 1
            if not feed.num_watchers and feed.task is not None:
                feed.task.cancel()
                del self._feeds[job_id]

    async def _follow(self, feed: _Feed) -> None:
        while True:
            try:
                frames = await self._read(feed.job_id, feed.seq)
            except SQLAlchemyError as error:
                log.warning("the log of %s cannot be read, and will be tried again: %s", feed.job_id, error)
                frames = ()
            if frames:
                feed.extend(frames)
                if frames[-1].is_last:
                    return
            if len(frames) < _PAGE:
                await asyncio.sleep(_GAP_SECONDS)
                await _happens(feed.rung, POLL_SECONDS)
            feed.rung.clear()


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def reader(db: Database) -> Read:
    """Reads pages of jobs' logs, in a thread; no connection is held between two reads."""

    def read(job_id: str, after: int) -> Sequence[Frame]:
        with db.reading() as session:
            recorded = [row.recorded() for row in service.events_after(session, job_id, after, _PAGE)]
        return [
            Frame(
                event.seq,
                f"id: {event.seq}\nevent: {event.event.type}\ndata: {event.model_dump_json()}\n\n".encode(),
                event.ends_job,
            )
            for event in recorded
        ]

    async def read_in_thread(job_id: str, after: int) -> Sequence[Frame]:
        return await run_in_threadpool(read, job_id, after)

    return read_in_thread
