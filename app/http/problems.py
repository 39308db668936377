"""Every error is answered as RFC 9457 problem+json, also those of the framework and of validation."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.http.guard import REQUEST_ID_HEADER, request_id
from stillhouse.contract.failures import (
    Blame,
    Failure,
    FieldError,
    ForbiddenOriginError,
    IllegalActionError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    MissingScopeError,
    NotFoundError,
    RateLimitedError,
    StillhouseError,
    UnauthenticatedError,
    UnavailableError,
    UploadIncompleteError,
    every_failure,
)
from stillhouse.contract.resources import Problem

MEDIA_TYPE = "application/problem+json"
# docs/errors.md has a row for each.
TYPE_PREFIX = "urn:stillhouse:error:"
RETRY_AFTER_SECONDS = 2
_KINDS: Final = {kind.code: kind for kind in every_failure()}
# For a code that only a worker of another version knows.
_STATUS: Final = {
    Blame.USER: HTTPStatus.UNPROCESSABLE_ENTITY, Blame.SYSTEM: HTTPStatus.INTERNAL_SERVER_ERROR,
    Blame.INFRASTRUCTURE: HTTPStatus.SERVICE_UNAVAILABLE,
}

_TRY_AGAIN = {HTTPStatus.CONFLICT, HTTPStatus.LOCKED, HTTPStatus.SERVICE_UNAVAILABLE}

log = logging.getLogger(__name__)


def problem(error: StillhouseError, *, instance: str | None = None, request: str | None = None) -> Problem:
    """The error as data; `request` is the id of the request."""
    return Problem(
        type=f"{TYPE_PREFIX}{error.code}",
        title=_title(type(error)),
        status=error.http_status,
        detail=error.message,
        instance=instance,
        code=error.code,
        blame=error.blame,
        retryable=error.retryable,
        param=error.param,
        errors=list(error.errors),
        allowed_actions=list(error.allowed_actions) if isinstance(error, IllegalActionError) else None,
        request_id=request,
    )


def problem_of(failure: Failure, *, instance: str, request: str) -> Problem:
    """What a worker found wrong, as data; `request` is the id of the request that it is told to."""
    kind = _KINDS.get(failure.code)
    return Problem(
        type=f"{TYPE_PREFIX}{failure.code}",
        title=_title(kind) if kind else "A failure of another version of this service",
        status=kind.http_status if kind else _STATUS[failure.blame],
        detail=failure.message,
        instance=instance,
        code=failure.code,
        blame=failure.blame,
        retryable=failure.retryable,
        param=failure.param,
        request_id=request,
    )


def answer(scope: Mapping[str, Any], error: StillhouseError, headers: Mapping[str, str] | None = None) -> Response:
    """The error as a response to the request of this ASGI scope."""
    waits = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
    told = problem(error, instance=scope["path"], request=request_id(scope))
    return _respond(scope, told, {**waits, **(headers or {})})


def answer_failure(scope: Mapping[str, Any], failure: Failure, location: str) -> Response:
    """What a worker found wrong as a response to the request of this ASGI scope; `location` is where it is kept."""
    told = problem_of(failure, instance=location, request=request_id(scope))
    return _respond(scope, told, {"Location": location})


def _respond(scope: Mapping[str, Any], told: Problem, headers: Mapping[str, str]) -> Response:
    return JSONResponse(
        told.model_dump(mode="json", exclude_none=True),
        status_code=told.status,
        headers={**_usual_headers(scope, told), **headers},
        media_type=MEDIA_TYPE,
    )


def _usual_headers(scope: Mapping[str, Any], told: Problem) -> dict[str, str]:
    headers = {REQUEST_ID_HEADER: request_id(scope)}
    if told.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if told.retryable and told.status in _TRY_AGAIN:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


def _title(kind: type[StillhouseError]) -> str:
    return (kind.__doc__ or "").strip().rstrip(".")


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have the app answer every error as a problem. `routes` are all that it has."""
    app.state.routes = routes
    app.add_exception_handler(StillhouseError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(ClientDisconnect, _cut_off)
    app.add_exception_handler(DBAPIError, _of_database)
    app.add_exception_handler(PoolTimeoutError, _of_database)
    app.add_exception_handler(Exception, _unforeseen)


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, StillhouseError)  # noqa: S101 - the framework's promise
    return answer(request.scope, error)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the framework's promise
    fields = [
        FieldError(pointer=str(wrong["loc"][-1]), detail=wrong["msg"].removeprefix("Value error, "))
        for wrong in error.errors()
    ]
    message = "; ".join(f"{field.pointer}: {field.detail}" for field in fields)
    return answer(request.scope, InvalidRequestError(message, param=fields[0].pointer, errors=fields))


def _of_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the framework's promise
    if error.status_code == HTTPStatus.NOT_FOUND:
        return answer(request.scope, NotFoundError("There is nothing at this path."), error.headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return answer(request.scope, MethodNotAllowedError(), {"Allow": ", ".join(_allowed_methods(request))})
    return answer(request.scope, InvalidRequestError(error.detail), error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """Of all routes of this path; the framework tells those of the first only."""
    routes: Sequence[APIRoute] = request.app.state.routes
    return sorted({
        method for route in routes if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    })


def _cut_off(request: Request, _error: Exception) -> Response:
    # Nobody reads this answer; the log and the metrics do.
    return answer(request.scope, UploadIncompleteError())


def _of_database(request: Request, error: Exception) -> Response:
    if not isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        raise error
    log.error("request %s: the database is out of reach: %s", request_id(request.scope), error)
    return answer(request.scope, UnavailableError("The database is out of reach; try again in a moment."))


def _unforeseen(request: Request, _error: Exception) -> Response:
    # The server logs the traceback itself; this line ties it to the request.
    log.error("request %s failed", request_id(request.scope))
    return answer(request.scope, InternalError())


def declared(*failures: type[StillhouseError]) -> dict[int | str, dict[str, Any]]:
    """What a route may fail with, for OpenAPI: one response per status, naming the codes."""
    by_status: defaultdict[int, list[type[StillhouseError]]] = defaultdict(list)
    kinds: list[type[StillhouseError]] = [*failures, InternalError]
    if UnauthenticatedError in failures:
        # Who asks for a key is guarded, asks what the key may do, and asks the database.
        kinds += [ForbiddenOriginError, MissingScopeError, RateLimitedError, UnavailableError]
    for kind in dict.fromkeys(kinds):
        by_status[int(kind.http_status)].append(kind)
    return {status: _documented(kinds) for status, kinds in sorted(by_status.items())}


def _documented(kinds: Sequence[type[StillhouseError]]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    examples = {kind.code: {"value": problem(kind()).model_dump(mode="json", exclude_none=True)} for kind in kinds}
    return {
        "description": "\n".join(f"- `{kind.code}`: {(kind.__doc__ or '').strip()}" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
