"""The outermost layer: a name for each request, its duration, and who may address this service at all."""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit import logs

REQUEST_ID_HEADER = "X-Request-Id"
# Where in a request's state stands what its answer is to carry, whatever that is.
EXTRA_HEADERS = "extra_headers"
# Probes address a machine by whatever name it has; these routes tell nothing worth guarding.
UNGUARDED = ("/healthz", "/readyz")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# A client may write any word in the place of a method.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked for every few seconds by machines.
_ROUTINE = (*UNGUARDED, "/metrics")

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told of each finished request."""

    def __call__(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count it."""


def request_id(scope: Mapping[str, Any]) -> str:
    """The request's id; every answer and every log line about it carries it."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


class Naming:
    """Gives each request an id (the client's own, where it is sane) and tells the observer how it went."""

    def __init__(self, app: ASGIApp, observe: Observer) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = _sane(Headers(scope=scope).get(REQUEST_ID_HEADER)) or f"req_{secrets.token_hex(10)}"
        scope.setdefault("state", {})["request_id"] = name
        status = 500

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update({**scope["state"].get(EXTRA_HEADERS, {}), REQUEST_ID_HEADER: name})
            await send(message)

        begun = time.perf_counter()
        with logs.about(request_id=name):
            try:
                await self.app(scope, receive, send_named)
            finally:
                seconds = time.perf_counter() - begun
                self.observe(method=_method(scope), route=_route(scope), status=status, seconds=seconds)
                _tell(scope, status, seconds)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    """Log a finished request, with the ids that its path names and nothing else that the client wrote."""
    ids = {
        name: value for name, value in scope.get("path_params", {}).items()
        if name.endswith("_id") and _sane(str(value))
    }
    log.log(logging.DEBUG if scope["path"] in _ROUTINE else logging.INFO, "request", extra={
        **ids, "method": _method(scope), "route": _route(scope),
        "status": status, "seconds": round(seconds, 6),
    })


def _sane(name: str | None) -> str | None:
    return name if name is not None and _REQUEST_ID.fullmatch(name) else None


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "unmatched"))


class Doorman:
    """Refuses requests addressed to another host, or sent by another site's page.

    A browser on this machine reaches a service on loopback, whoever wrote the page that it shows.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str], refuse: Callable[[Scope], ASGIApp]) -> None:
        self.app = app
        self.allowed = frozenset(allowed_hosts)
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in UNGUARDED or self._answers(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await self.refuse(scope)(scope, receive, send)

    def _answers(self, headers: Headers) -> bool:
        if "*" in self.allowed:
            return True
        origin = headers.get("origin")
        return _host(f"//{headers.get('host', '')}") in self.allowed and (
            origin is None or _host(origin) in self.allowed
        )


def _host(url: str) -> str:
    """The host of a URL as `allowed_hosts` writes it, without port; empty where there is none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return f"[{host}]" if ":" in host else host
