"""Request bodies: never larger than allowed, and never whole in memory where they may be large."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from stillhouse.contract.failures import StillhouseError, UploadIncompleteError

PIECE = 1024 * 1024


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
    """Hand the body to `write` in pieces of about 1 MiB, in a thread, while the next piece arrives.

    Raises what `write` raises, the failure of `too_large`, or UploadIncompleteError.
    """
    received = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in _pieces(request.stream()):
            received += len(piece)
            if received > limit:
                raise too_large(_limit_told(limit))
            if writing is not None:
                await writing
            writing = asyncio.create_task(run_in_threadpool(write, piece))
    finally:
        # Whoever closes the file next must not close it under a thread that writes.
        if writing is not None:
            await asyncio.wait([writing])
    if writing is not None:
        await writing
    if received < (declared_length(request) or 0):
        raise UploadIncompleteError


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)


def _limit_told(limit: int) -> str:
    return f"The request body is larger than the {limit} bytes that this service accepts."
