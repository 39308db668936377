"""Request bodies: never larger than allowed, and never whole in memory where they may be large."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.kit.pointers import step
from stillhouse.contract.failures import (
    FieldError,
    InvalidRequestError,
    RequestTimeoutError,
    StillhouseError,
    UploadIncompleteError,
)

PIECE = 1024 * 1024
# What gathers while the disk is slow, before the client is made to wait.
MOST = 8 * PIECE

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], body: bytes) -> Model:
    """What the JSON body says. Raises InvalidRequestError, with a pointer to each field that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        fields = [
            FieldError(pointer=_pointer(wrong["loc"]), detail=wrong["msg"])
            for wrong in error.errors(include_url=False)
        ]
        raise InvalidRequestError(
            "; ".join(f"{field.pointer}: {field.detail}" for field in fields), param=fields[0].pointer, errors=fields
        ) from error


def _pointer(loc: tuple[int | str, ...]) -> str:
    """Where pydantic's location points, as a JSON pointer; of a key itself, its own name goes before."""
    return "".join(step(part) for part in loc if part != "[key]") or "/"


async def read_body(request: Request, limit: int, too_large: Callable[[str], StillhouseError]) -> bytes:
    """The whole body, of at most `limit` bytes; else the failure that `too_large` makes is raised."""
    refuse_early(request, limit, too_large)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large(_limit_told(limit))
    return bytes(body)


def refuse_early(request: Request, limit: int, too_large: Callable[[str], StillhouseError]) -> None:
    """Refuse a body by its declared length, before it is sent."""
    if (declared_length(request) or 0) > limit:
        raise too_large(_limit_told(limit))


def declared_length(request: Request) -> int | None:
    """Content-Length; None where the client does not know it."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


async def pour(
    request: Request, write: Callable[[bytes], None], limit: int, too_large: Callable[[str], StillhouseError]
) -> None:
    """Hand the body to `write` in pieces of 1 MiB or more, in a thread, while the next piece gathers.

    Raises what `write` raises, the failure of `too_large`, or, when all that came is written, UploadIncompleteError,
    RequestTimeoutError or ClientDisconnect.
    """
    received, size = 0, 0
    gathered: list[bytes] = []
    writing: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(0))
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise too_large(_limit_told(limit))
            gathered.append(chunk)
            size += len(chunk)
            if size >= MOST or (size >= PIECE and writing.done()):
                await writing
                writing = asyncio.ensure_future(run_in_threadpool(_write_joined, write, gathered))
                gathered, size = [], 0
        await writing
        await run_in_threadpool(_write_joined, write, gathered)
    except (ClientDisconnect, RequestTimeoutError):
        # Whoever can go on from where the client was cut off is to have all that came.
        await writing
        await run_in_threadpool(_write_joined, write, gathered)
        raise
    finally:
        # Whoever closes the file next must not close it under a thread that writes.
        await asyncio.wait([writing])
    if received < (declared_length(request) or 0):
        raise UploadIncompleteError


def _write_joined(write: Callable[[bytes], None], chunks: Sequence[bytes]) -> None:
    write(b"".join(chunks))


def _limit_told(limit: int) -> str:
    return f"The request body is larger than the {limit} bytes that this service accepts."
