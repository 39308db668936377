"""Wakes watchers of a job. A doorbell only: whoever listens reads the database again, and polls it besides."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import redis
import redis.asyncio
from redis.exceptions import RedisError

CHANNEL_PREFIX = "stillhouse:job:"
_CONNECT_SECONDS = 2
_RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


def redis_url(broker_url: str) -> str:
    """The broker's URL as redis-py writes it: Celery calls a Unix socket redis+socket://."""
    return broker_url.replace("redis+socket://", "unix://", 1)


class Announcer:
    """Tells every API process that a job has something new."""

    def __init__(self, broker_url: str) -> None:
        self._broker = redis.Redis.from_url(
            redis_url(broker_url), socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS
        )

    def announce(self, job_id: str) -> None:
        """Ring for a job. Never raises: watchers poll where no bell rings."""
        try:
            self._broker.publish(f"{CHANNEL_PREFIX}{job_id}", b"")
        except (RedisError, OSError) as error:
            log.warning("watchers of %s were not told, and will look for themselves: %s", job_id, error)

    def answers(self) -> bool:
        """Whether the broker is in reach."""
        try:
            return bool(self._broker.ping())
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        """Let the connections go."""
        self._broker.close()


def announce(broker_url: str) -> Announcer:
    """An announcer at this broker. Connects when it first rings; safe to share between threads."""
    return Announcer(broker_url)


async def listen(broker_url: str, heard: Callable[[str], None]) -> None:
    """Call `heard` with the id of each job that is announced, over one connection, until cancelled."""
    is_told = False
    while True:
        try:
            async with _opened(broker_url) as bell:
                is_told = False
                async for message in bell.listen():
                    heard(message["channel"].decode().removeprefix(CHANNEL_PREFIX))
        except (RedisError, OSError) as error:
            if not is_told:
                log.warning("the doorbell is out of reach; watchers poll meanwhile: %s", error)
            is_told = True
        await asyncio.sleep(_RETRY_SECONDS)


@contextlib.asynccontextmanager
async def _opened(broker_url: str) -> AsyncIterator[redis.asyncio.client.PubSub]:
    broker = redis.asyncio.Redis.from_url(redis_url(broker_url), socket_connect_timeout=_CONNECT_SECONDS)
    async with broker, contextlib.aclosing(broker.pubsub(ignore_subscribe_messages=True)) as bell:
        await bell.psubscribe(f"{CHANNEL_PREFIX}*")
        yield bell
