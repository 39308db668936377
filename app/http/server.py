"""How the API is served: one set of options wherever a server starts, and a protocol that bounds slow and long clients.

Uvicorn alone waits for ever for a request's headers and for whoever does not read the answer, and its fast parser takes
headers of any length.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.settings import Settings

_GRACE_SECONDS = 10
# How long the rest of a body that nobody wants is still taken: a socket closed on it would lose the answer.
_LINGER_SECONDS = 5.0


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`, beside the application."""
    return {
        "host": settings.host, "port": settings.port, "access_log": False, "server_header": False,
        "proxy_headers": False, "ws": "none", "timeout_graceful_shutdown": _GRACE_SECONDS, "log_config": None,
        "http": _bounded(settings.client_seconds, settings.max_header_bytes),
    }


def _bounded(seconds: float, max_bytes: int) -> type["Bounded"]:
    """The protocol with these bounds: uvicorn makes its instances itself."""
    return type("Bounded", (Bounded,), {"seconds": seconds, "max_bytes": max_bytes})


class Bounded(HttpToolsProtocol):
    """A connection that ends when its client is too slow, or sends more than `max_bytes` around a body."""

    seconds: float
    max_bytes: int
    _num_around = 0
    _is_in_head = True
    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait(self.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse headers, trailers and chunk extensions that are too long."""
        self._num_around += len(data)
        super().data_received(data)
        if self._num_around > self.max_bytes and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Wait for its headers."""
        super().on_message_begin()
        self._is_in_head = True
        self._wait(self.seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers would gather behind a request that has begun."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go to work."""
        self._is_in_head = False
        self._num_around = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._num_around = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note of the end of the request."""
        self._num_around = 0
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let the connection go where the rest of a body comes that nobody reads."""
        if self.cycle.more_body and not self.transport.is_closing():
            self._wait(_LINGER_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self) -> None:
        if self._is_in_head:
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
