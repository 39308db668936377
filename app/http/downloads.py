"""Files as responses: ranges, validators, digests. The content is named by its sha256."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.http.problems import answer
from stillhouse.contract.failures import RangeNotSatisfiableError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_PLAIN = re.compile(r"[^A-Za-z0-9._-]")

MEDIA_TYPES = {
    "zip": "application/zip", "html": "text/html; charset=utf-8", "json": "application/json",
}
_FILES: dict[str, Any] = {kind.partition(";")[0]: {} for kind in ("application/octet-stream", *MEDIA_TYPES.values())}
# Errors of OpenAPI are declared with `declared`; these are the good ways in which a download may end.
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": _FILES},
    206: {"description": "The range of the file that was asked for.", "content": _FILES},
    304: {"description": "The file is still the one that If-None-Match names."},
}


@dataclass(frozen=True)
class Content:
    """A stored file. `read` gives the bytes from a start to an end (exclusive)."""

    name: str
    media_type: str
    size: int
    sha256: str
    read: Callable[[int, int], Iterator[bytes]]

    @property
    def etag(self) -> str:
        """The strong validator: the digest in quotes."""
        return f'"{self.sha256}"'


def serve(request: Request, content: Content, headers: Mapping[str, str] | None = None) -> Response:
    """The file, the range of it that was asked for, or word that it is unchanged."""
    common = {**_headers(content), **(headers or {})}
    if names_etag(request.headers.get("if-none-match", ""), content.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={**common, "Content-Type": content.media_type})
    span = _wanted(request, content)
    if span is None:
        return _stream(content, range(content.size), HTTPStatus.OK, common)
    if not span:
        unsatisfied = {"Content-Range": f"bytes */{content.size}"}
        return answer(request.scope, RangeNotSatisfiableError(), unsatisfied)
    told = {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{content.size}"}
    return _stream(content, span, HTTPStatus.PARTIAL_CONTENT, {**common, **told})


def _stream(content: Content, span: range, status: HTTPStatus, headers: Mapping[str, str]) -> Response:
    return StreamingResponse(
        content.read(span.start, span.stop), status_code=status, media_type=content.media_type,
        headers={**headers, "Content-Length": str(len(span))},
    )


def _headers(content: Content) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(content.sha256)).decode()
    return {
        "ETag": content.etag,
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition("attachment", content.name),
        "X-Content-Type-Options": "nosniff",
    }


def disposition(kind: str, name: str) -> str:
    """Content-Disposition with a name in plain ASCII, and the true one for who can read it (RFC 6266)."""
    return f"{kind}; filename=\"{_PLAIN.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def names_etag(condition: str, etag: str) -> bool:
    """Whether If-None-Match names this validator, or any."""
    candidates = [candidate.strip().removeprefix("W/") for candidate in condition.split(",")]
    return etag in candidates or candidates == ["*"]


def _wanted(request: Request, content: Content) -> range | None:
    """The span that was asked for; empty where it lies outside; None for the whole file.

    Several ranges in one request are answered with the whole file, as RFC 9110 allows.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", content.etag) != content.etag:
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, content.size - int(last)), content.size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(content.size, int(last) + 1) if last else content.size)
