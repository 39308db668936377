"""How often a key may ask: a bucket for each, kept in the broker, so that all API processes count together.

Where the broker is out of reach each process counts for itself. Nobody is refused because counting fails.
"""

import logging
import math
import time
from dataclasses import dataclass

from redis.exceptions import RedisError
from throttled import RateLimiterType, Throttled, rate_limiter
from throttled.exceptions import StoreUnavailableError
from throttled.store import BaseStore, MemoryStore, RedisStore

from app.doorbell import redis_url

_MINUTE = 60
# A broker that does not answer in this time is slower than what it protects.
_ANSWER_SECONDS = 0.25
# How long a broker that failed is not asked again.
_SECONDS_BETWEEN_TRIES = 5.0
_KEYS_IN_MEMORY = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rate:
    """How a key stands after a request."""

    per_minute: int
    is_exceeded: bool
    num_left: int
    # Until the bucket is full again, and until one more request fits.
    reset_seconds: float
    retry_seconds: float

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers has it told."""
        return {
            "RateLimit-Policy": f'"minute";q={self.per_minute};w={_MINUTE}',
            "RateLimit": f'"minute";r={self.num_left};t={math.ceil(self.reset_seconds)}',
        }


class Rates:
    """Counts requests by key. Safe to share between threads."""

    def __init__(self, broker_url: str) -> None:
        self._shared = RedisStore(server=redis_url(broker_url), options={
            "SOCKET_TIMEOUT": _ANSWER_SECONDS, "SOCKET_CONNECT_TIMEOUT": _ANSWER_SECONDS, "REUSE_CONNECTION": False,
        })
        self._own = MemoryStore(options={"MAX_SIZE": _KEYS_IN_MEMORY})
        self._try_again_at = 0.0

    def count(self, key_id: str, per_minute: int) -> Rate:
        """Count a request of the key, which may send so many at once and then as many each minute."""
        if time.monotonic() >= self._try_again_at:
            try:
                return _count(self._shared, key_id, per_minute)
            except (StoreUnavailableError, RedisError, OSError) as error:
                self._try_again_at = time.monotonic() + _SECONDS_BETWEEN_TRIES
                log.warning("requests are counted by each process for itself, without the broker: %s", error)
        return _count(self._own, key_id, per_minute)


def _count(store: BaseStore, key_id: str, per_minute: int) -> Rate:
    quota = rate_limiter.per_min(per_minute, burst=per_minute)
    told = Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=store, key_prefix="stillhouse:rate")
    result = told.limit(key_id)
    state = result.state
    return Rate(per_minute, result.limited, state.remaining, state.reset_after, state.retry_after)
