"""One HTTP connection to the service: authentication, retries, and errors in plain words."""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

import httpx
import stamina
from pydantic import BaseModel, TypeAdapter, ValidationError

from stillhouse.client.errors import (
    ServiceUnreachableError,
    StillhouseApiError,
    StillhouseClientError,
    UnexpectedAnswerError,
    error_of,
)
from stillhouse.contract.resources import Page

# Seconds. Reading is long because the service may be writing a large upload to disk before it answers.
TIMEOUT = httpx.Timeout(connect=5.0, read=120.0, write=60.0, pool=60.0)
# Waits about 0.2, 0.4 and 0.8 s: enough for a restart behind a proxy, short enough for a person at a terminal.
_RETRY = stamina.RetryingCaller(attempts=4, timeout=None, wait_initial=0.2, wait_max=2.0, wait_jitter=0.2)
# Seconds that one call spends on waits that the service asks for. Slow rates ask for a minute.
PATIENCE = 70.0

_BUSY_STATUSES = frozenset({
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT,
})
# Refusals of this one attempt, not of the request.
_PASSING_CODES = frozenset({"idempotency_key_in_flight", "upload_incomplete"})

Params = Mapping[str, str | int | list[str] | None]
P = ParamSpec("P")
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, StillhouseApiError):
        return error.status in _BUSY_STATUSES or error.code in _PASSING_CODES
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    )


def never_arrived(error: Exception) -> bool:
    """Whether the service has surely not seen the request, so that repeating it does nothing twice."""
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))


class Again:
    """Whether to send once more after a failure, and when: for stamina. One for each call.

    Who is refused as one too many has changed nothing, and waits as long as the service asks, while there is patience.
    """

    def __init__(self, is_worth_it: Callable[[Exception], bool], patience: float = PATIENCE) -> None:
        self._is_worth_it = is_worth_it
        self._left = patience

    def __call__(self, error: Exception) -> bool | float:
        """Seconds to wait, True for the usual, False to give up."""
        if not isinstance(error, StillhouseApiError) or not error.is_one_too_many:
            return self._is_worth_it(error)
        if not error.retry_after:
            return True
        self._left -= error.retry_after
        return error.retry_after if self._left >= 0 else False


class Connection:
    """Sends requests and raises `StillhouseClientError`s."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = checked_url(url)
        # A proxy from the environment is not meant for a service on this machine.
        self.http = httpx.Client(
            base_url=self.url, headers=_headers(key), timeout=TIMEOUT, trust_env=not _is_loopback(self.url)
        )

    def close(self) -> None:
        """Close the sockets."""
        self.http.close()

    def retrying(
        self, send: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `send`, again after failures that may pass."""
        with self.plain_errors():
            return _RETRY(Again(may_pass), send, *args, **kwargs)

    def request(
        self, method: str, path: str, *, params: Params | None = None, json: Any = None,  # noqa: ANN401 - any JSON
        headers: Mapping[str, str] | None = None, repeatable: bool = True, patience: float = PATIENCE,
    ) -> httpx.Response:
        """Send a small request and return its answer, which is below 400.

        `patience` is how many seconds may go into waits that the service asks for.
        """

        def send() -> httpx.Response:
            return succeeded(self.http.request(method, path, params=given(params), json=json, headers=headers))

        with self.plain_errors():
            return _RETRY(Again(may_pass if repeatable else never_arrived, patience), send)

    def read(
        self, model: type[Model], path: str, params: Params | None = None, *, patience: float = PATIENCE
    ) -> Model:
        """GET a resource."""
        return parsed(model, self.request("GET", path, params=params, patience=patience))

    def read_list(self, model: type[Model], path: str) -> list[Model]:
        """GET a list of resources that is not paged."""
        response = self.request("GET", path)
        with _told_as_unexpected(model.__name__, response):
            return TypeAdapter(list[model]).validate_json(response.content)  # type: ignore[valid-type]

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Turn what httpx raises into words for people."""
        try:
            yield
        except httpx.TransportError as error:
            raise self.explained(error) from error

    def explained(self, error: httpx.TransportError) -> StillhouseClientError:
        """An error of the connection in plain words."""
        if isinstance(error, httpx.UnsupportedProtocol):
            return UnexpectedAnswerError(f"{self.url} is not an address of a service: {error}")
        return ServiceUnreachableError(f"no answer from {self.url}: {_cause(error)}")


def succeeded(response: httpx.Response) -> httpx.Response:
    """The answer, unless it tells an error."""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        response.read()
        raise error_of(response)
    return response


def parsed(model: type[Model], response: httpx.Response) -> Model:
    """The resource in an answer."""
    with _told_as_unexpected(model.__name__, response):
        return model.model_validate_json(response.content)


@contextmanager
def _told_as_unexpected(name: str, response: httpx.Response) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise UnexpectedAnswerError(
            f"{response.request.url} answered something that is not {name}; is this a Stillhouse service "
            f"of a version near to this client's? ({error.error_count()} fields do not fit)"
        ) from error


def pages(connection: Connection, model: type[Model], path: str, params: Params) -> Iterator[Model]:
    """Every item of a list, page by page."""
    cursor: str | None = None
    while True:
        page = connection.read(Page[model], path, {**params, "cursor": cursor})  # type: ignore[valid-type]
        yield from page.data
        cursor = page.next_cursor
        if not page.has_more or cursor is None:
            return


def given(params: Params | None) -> dict[str, str | int | list[str]]:
    """The parameters that are set."""
    return {name: value for name, value in (params or {}).items() if value is not None}


def checked_url(url: str) -> str:
    """The address without a trailing slash; `localhost:8765` means http."""
    full = url if "://" in url else f"http://{url}"
    try:
        parts = httpx.URL(full)
    except httpx.InvalidURL as error:
        raise UnexpectedAnswerError(f"{url!r} is not an address: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise UnexpectedAnswerError(f"{url!r} is not an address of a service; give one like http://127.0.0.1:8765")
    return full.rstrip("/")


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cause(error: httpx.TransportError) -> str:
    """Why, without the words of a socket."""
    if "Connection refused" in str(error):
        return "connection refused, so nothing is listening there"
    if _is_due_to(error, socket.gaierror):
        return "the name of the host is not known"
    if isinstance(error, httpx.ConnectTimeout):
        return "the connection timed out"
    if isinstance(error, httpx.TimeoutException):
        return "it fell silent"
    if isinstance(error.__cause__, ssl.SSLError) or "SSL" in str(error):
        return f"no secure connection ({error})"
    return str(error) or "the connection broke"


def _is_due_to(error: BaseException | None, kind: type[OSError]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None
