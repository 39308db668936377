"""Whether the broker is in reach, keeps what is put into it, and carries the doorbell."""

import time
from collections.abc import Iterator
from typing import Any, Final

import redis
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError, TimeoutError  # noqa: A004

from app.doorbell import CHANNEL_PREFIX, redis_url
from app.kit.ids import new_id
from app.settings import Settings
from stillhouse.contract.findings import Finding, failed, ok, warning
from stillhouse.wording import milliseconds, size

_ANSWER_SECONDS: Final = 3
_FULL_SHARE: Final = 0.9
_KEEP = "Set maxmemory-policy noeviction."


def look(settings: Settings) -> Iterator[Finding]:
    """What was found; the last finding is a failed one where nothing more could be asked."""
    try:
        broker = redis.Redis.from_url(
            redis_url(settings.broker_url), socket_connect_timeout=_ANSWER_SECONDS, socket_timeout=_ANSWER_SECONDS,
        )
    except ValueError as error:
        yield failed("broker", f"STILLHOUSE_BROKER_URL is no address of a broker: {error}.", "Correct it.")
        return
    try:
        yield _reached(broker)
        yield _keeping(broker, settings)
        yield _doorbell(broker)
    except (RedisError, OSError) as error:
        yield _out_of_reach(error)
    finally:
        broker.close()


def _reached(broker: redis.Redis) -> Finding:
    broker.ping()
    began = time.perf_counter()
    broker.ping()
    took = milliseconds(1000 * (time.perf_counter() - began))
    told = _info(broker, "server")
    name, version = ("Valkey", told["valkey_version"]) if "valkey_version" in told else (
        "Redis", told.get("redis_version", "of a version that it does not tell")
    )
    return ok("broker", f"{name} {version} answers in {took}.")


def _keeping(broker: redis.Redis, settings: Settings) -> Finding:
    """Whether what is put into it stays there until it is taken."""
    check = "broker, keeping"
    try:
        key = f"stillhouse:{new_id('job')}"
        broker.lpush(key, b"x")
        broker.delete(key)
    except ResponseError as error:
        return failed(
            check, f"Nothing can be put into it: {error}.",
            "Name the primary, not a replica; give it memory (maxmemory); let its user write.",
        )
    told = _info(broker, "memory")
    policy, most, used = (told.get(name, 0) for name in ("maxmemory_policy", "maxmemory", "used_memory"))
    if str(policy).startswith("allkeys"):
        return warning(
            check, f"It drops keys when memory is short (maxmemory-policy {policy}): rings for workers get lost, and "
            f"jobs then wait up to {settings.ring_again_seconds:g} s and more until they are rung again.", _KEEP,
        )
    if most and used > _FULL_SHARE * most:
        return warning(
            check, f"Its memory is nearly full: {size(used)} of {size(most)}.", "Give it more (maxmemory).",
        )
    return ok(check, f"Rings can be put into it, and are kept{f' (maxmemory-policy {policy})' if policy else ''}.")


def _doorbell(broker: redis.Redis) -> Finding:
    """Ring as a worker does, and hear it as the API does."""
    check, channel = "broker, doorbell", f"{CHANNEL_PREFIX}{new_id('job')}"
    advice = (
        f"Let its user publish and subscribe to channels {CHANNEL_PREFIX}*. Until then whoever watches a job hears of "
        "news by polling only, some seconds late."
    )
    with broker.pubsub(ignore_subscribe_messages=True) as bell:  # type: ignore[no-untyped-call]
        try:
            bell.psubscribe(f"{channel}*")
            bell.get_message(timeout=_ANSWER_SECONDS)  # that it listens
            broker.publish(channel, b"")
            heard = bell.get_message(timeout=_ANSWER_SECONDS)
        except ResponseError as error:
            return warning(check, f"The doorbell cannot be rung: {error}.", advice)
    if heard is None:
        return warning(check, f"The doorbell was rung and not heard within {_ANSWER_SECONDS} s.", advice)
    return ok(check, "The doorbell was rung and heard.")


def _info(broker: redis.Redis, section: str) -> dict[str, Any]:
    try:
        return broker.info(section)
    except ResponseError:  # services that are hosted may forbid it
        return {}


def _out_of_reach(error: RedisError | OSError) -> Finding:
    told = str(error)
    if isinstance(error, AuthenticationError) or "NOAUTH" in told or "WRONGPASS" in told:
        return failed(
            "broker", "The broker refuses the user or the password.",
            "Put the right ones into STILLHOUSE_BROKER_URL, before the host and an @.",
        )
    if isinstance(error, TimeoutError):
        return failed(
            "broker", f"The broker does not answer within {_ANSWER_SECONDS} s.",
            "Look at the network and its firewalls between here and there, and whether it expects TLS (rediss://).",
        )
    if isinstance(error, ConnectionError | OSError):
        return failed(
            "broker", f"The broker is out of reach: {told.rstrip('.')}.",
            "Start Valkey or Redis, or correct STILLHOUSE_BROKER_URL. Meanwhile jobs are accepted, and wait.",
        )
    return failed("broker", f"The broker refuses: {told.rstrip('.')}.", "Look into its log.")
