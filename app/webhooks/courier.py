"""Sends what is due, in every API process. The rows are the truth: a bell only says when to look."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.kit.database import Database
from app.webhooks import delivery
from app.webhooks.delivery import HOUR, Claimed
from app.webhooks.sending import Sender
from app.webhooks.signing import signed_headers
from stillhouse import __version__
from stillhouse.contract.failures import StorageFullError

POLL_SECONDS = 2.0
# The bell rings for everything that a job says: what rings closer together than this is heard as one.
GAP_SECONDS = 0.2
# Twice as many as one owner can take up, with all webhooks that an owner may have.
MAX_SENDING = 40
MAX_SENDING_PER_WEBHOOK = 2
_CLOSE_SECONDS = 5.0
_FORGET_SECONDS = HOUR

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Courier:
    """Claims deliveries and sends them. Belongs to one event loop."""

    def __init__(self, db: Database, sender: Sender, *, keep_days: float) -> None:
        self._db = db
        self._sender = sender
        self._keep_days = keep_days
        self._sending: dict[asyncio.Task[None], str] = {}
        self._look = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._forget_at = 0.0

    def ring(self) -> None:
        """Something may be due."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(GAP_SECONDS, self._look_now)

    async def run(self) -> None:
        """Send what is due until cancelled."""
        while True:
            self._look.clear()
            try:
                await self._begin_all()
                await self._forget_now_and_then()
            except (SQLAlchemyError, StorageFullError) as error:
                log.warning("webhooks wait until the database answers: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._look.wait()

    async def close(self) -> None:
        """Give what is being sent a moment to end. The rest is sent again by another, when its lease has run out."""
        if self._soon is not None:
            self._soon.cancel()
        if self._sending:
            await asyncio.wait(self._sending, timeout=_CLOSE_SECONDS)
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _look_now(self) -> None:
        self._soon = None
        self._look.set()

    async def _begin_all(self) -> None:
        while len(self._sending) < MAX_SENDING:
            claimed = await _in_thread(partial(delivery.claim, self._db, busy=self._busy()))
            if claimed is None:
                return
            task = asyncio.create_task(self._deliver(claimed))
            self._sending[task] = claimed.webhook_id
            task.add_done_callback(self._ended)

    def _busy(self) -> list[str]:
        sending = Counter(self._sending.values())
        return [webhook_id for webhook_id, count in sending.items() if count >= MAX_SENDING_PER_WEBHOOK]

    async def _deliver(self, claimed: Claimed) -> None:
        signed = signed_headers(claimed.secrets, claimed.message_id, claimed.body, datetime.now(UTC))
        headers = {
            **signed, "Content-Type": "application/json", "User-Agent": f"Stillhouse/{__version__}",
            "Accept-Encoding": "identity", "Connection": "close",
        }
        begun = time.perf_counter()
        answer = await self._sender.post(claimed.url, headers, claimed.body.encode())
        seconds = time.perf_counter() - begun
        if answer.outcome != "delivered":
            log.info("webhook %s: %s was not taken: %s", claimed.webhook_id, claimed.delivery_id, answer.detail)
        await _in_thread(partial(delivery.record, self._db, claimed, answer, seconds))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._look.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a delivery will be sent again when its lease has run out", exc_info=error)

    async def _forget_now_and_then(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + _FORGET_SECONDS
            await _in_thread(partial(delivery.forget, self._db, older_than_days=self._keep_days))


async def _in_thread(work: Callable[[], Result]) -> Result:
    """What the work gives. Whoever is cancelled waits for the thread: what it holds is not taken from under it."""
    running = asyncio.ensure_future(run_in_threadpool(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


@contextlib.asynccontextmanager
async def delivering(db: Database, sender: Sender, *, keep_days: float) -> AsyncIterator[Callable[[], None]]:
    """Webhooks are sent until the end of the block; what it gives is the bell."""
    courier = Courier(db, sender, keep_days=keep_days)
    running = asyncio.create_task(courier.run())
    try:
        yield courier.ring
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await courier.close()
