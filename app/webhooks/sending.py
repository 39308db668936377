"""Sends one request to a receiver, and to no machine that it must not reach.

The name is resolved once, by us; every address is checked; the connection is made to one of these very addresses. So
a name that changes its answer between check and use (DNS rebinding) gains nothing. Host, TLS server name and the
check of the certificate stay those of the URL.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

import httpcore2

from app.webhooks import addresses
from stillhouse.contract.webhooks import Outcome

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 1024
# How long the body of an answer is waited for: its status has told all that counts.
_BODY_SECONDS = 2.0
_LONGEST_DETAIL = 500

# From host and port to addresses, as the resolver orders them. Raises OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True)
class Answer:
    """How one attempt ended."""

    outcome: Outcome
    status: int | None = None
    detail: str | None = None
    body: str | None = None
    # Seconds that the receiver asks to be left alone for.
    retry_after: int | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing more, ever."""
        return self.status == HTTPStatus.GONE


class UnsafeAddressError(Exception):
    """The name leads to a machine that must not be reached."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Sender:
    """Sends requests. Goes through no proxy, follows no redirect, keeps no connection."""

    def __init__(
        self, *, allow_private: bool, resolve: Resolve = resolve, context: ssl.SSLContext | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._context = context or httpcore2.default_ssl_context()
        self._timeout_seconds = timeout_seconds

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send the body, and tell how that went. Never raises for what a receiver or a network does."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(httpcore2.URL(url), headers, body)
        except UnsafeAddressError as error:
            return Answer("unsafe_address", detail=str(error))
        except (TimeoutError, httpcore2.TimeoutException):
            return Answer("timed_out", detail=f"no answer within {self._timeout_seconds:g} s")
        except (OSError, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            return Answer("unreachable", detail=(str(error) or type(error).__name__)[:_LONGEST_DETAIL])

    async def _post(self, url: httpcore2.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        backend = _CheckedBackend(
            self._resolve, allow_private=self._allow_private, only_loopback=url.scheme != b"https"
        )
        async with (
            httpcore2.AsyncConnectionPool(self._context, network_backend=backend) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
        ):
            return _answer(response, await _beginning(response))


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, resolve: Resolve, *, allow_private: bool, only_loopback: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._only_loopback = only_loopback
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None,  # noqa: ASYNC109 - the base's signature
        local_address: str | None = None, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address of the host that takes one. Raises UnsafeAddressError."""
        found = await self._resolve(host, port)
        for address in found:
            self._check(host, address)
        failure: httpcore2.NetworkError = httpcore2.ConnectError(f"{host} has no address")
        for address in found:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                failure = error
        raise failure

    def _check(self, host: str, found: str) -> None:
        address = ip_address(found)
        word = addresses.refusal(address, allow_private=self._allow_private)
        if word is None and self._only_loopback and not addresses.is_loopback(address):
            word = "not loopback, and without TLS nothing else is sent to"
        if word is not None:
            raise UnsafeAddressError(f"{host} leads to {found}, which is {word}")


async def _beginning(response: httpcore2.Response) -> bytes:
    """The first bytes of an answer's body, or as many as come in time."""
    body = b""
    with contextlib.suppress(TimeoutError, httpcore2.NetworkError, httpcore2.ProtocolError):
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in response.aiter_stream():
                body += part
                if len(body) >= MAX_ANSWER_BYTES:
                    break
    return body[:MAX_ANSWER_BYTES]


def _answer(response: httpcore2.Response, body: bytes) -> Answer:
    status = response.status
    text = body.decode("utf-8", "replace")
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Answer("delivered", status, body=text)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Answer("redirected", status, "redirects are not followed; change the webhook's URL", text)
    return Answer("refused", status, f"answered with status {status}", text, _retry_after(response))


def _retry_after(response: httpcore2.Response) -> int | None:
    """Seconds of Retry-After; its other form, a date, is passed over."""
    told = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return int(told) if told.isdigit() and len(told) <= len("86400") else None
