"""Files up and down: streamed, hashed on the way, resumed after a broken connection, whole or not at all."""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import httpx

from stillhouse.client import resumable
from stillhouse.client.connection import Connection, Params, given, parsed, succeeded
from stillhouse.client.errors import StillhouseApiError, TransferError, UnexpectedAnswerError
from stillhouse.client.progress import ProgressCallback
from stillhouse.contract.resources import Artifact, Page

CHUNK_BYTES = 1024 * 1024
# From this size on a file goes up by requests that can be resumed.
RESUMABLE_BYTES = 64 * 1024 * 1024

# Answers to an upload without a body: the bytes are gone meanwhile, or an older service knows no such thing.
_TO_BE_SENT = frozenset({"unknown_content", "empty_upload"})
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def _silent(_done: int, _total: int | None) -> None:
    """Nobody watches."""


def upload(
    connection: Connection, path: Path, *, params: Params, progress: ProgressCallback | None = None
) -> Artifact:
    """Have a file as an artifact, and check that the service stored just these bytes.

    What the service has already is not sent: files of the same size are asked for first, so that nothing is read twice
    for a file that is new.
    """
    told = progress or _silent
    with path.open("rb") as file:
        if known := _known(connection, file, params):
            told(known.size, known.size)
            return known
        if os.fstat(file.fileno()).st_size >= RESUMABLE_BYTES:
            with suppress(resumable.NotResumableError):
                return _send_resumably(connection, file, params, told)
        return connection.retrying(_send_file, connection, file, params, told)


def _send_resumably(
    connection: Connection, file: BufferedReader, params: Params, progress: ProgressCallback
) -> Artifact:
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    artifact = resumable.send(connection, file, params=params, sha256=sha256, progress=progress)
    if artifact.sha256 != sha256:
        raise TransferError(f"the service stored other bytes than were sent of {file.name}; send it again")
    return artifact


def _known(connection: Connection, file: BufferedReader, params: Params) -> Artifact | None:
    """A new artifact of bytes that the service has from us already; None where it has not."""
    alike = {"kind": params.get("kind"), "size": os.fstat(file.fileno()).st_size}
    try:
        stored = {artifact.sha256 for artifact in connection.read(Page[Artifact], "/artifacts", alike).data}
        if not stored or (sha256 := hashlib.file_digest(file, "sha256").hexdigest()) not in stored:
            return None
        return parsed(Artifact, connection.request("POST", "/artifacts", params={**params, "sha256": sha256}))
    except StillhouseApiError as error:
        if error.status != HTTPStatus.FORBIDDEN and error.code not in _TO_BE_SENT:
            raise
        return None


def _send_file(connection: Connection, file: BinaryIO, params: Params, progress: ProgressCallback) -> Artifact:
    """One attempt, from the first byte."""
    digest = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    try:
        response = connection.http.post(
            "/artifacts", params=given(params), headers=headers, content=_chunks(file, size, digest.update, progress)
        )
    except httpx.LocalProtocolError as error:
        raise TransferError(f"{file.name} changed its size while it was being sent; send it again") from error
    artifact = parsed(Artifact, succeeded(response))
    if artifact.sha256 != digest.hexdigest():
        raise TransferError(
            f"the service stored other bytes than were sent of {file.name} (artifact {artifact.id}); send it again"
        )
    return artifact


def _chunks(
    file: BinaryIO, size: int, digest: Callable[[bytes], None], progress: ProgressCallback
) -> Iterator[bytes]:
    file.seek(0)
    progress(0, size)
    while chunk := file.read(CHUNK_BYTES):
        digest(chunk)
        yield chunk
        progress(file.tell(), size)


@dataclass
class _Partial:
    """What has arrived of a file so far."""

    file: BinaryIO
    progress: ProgressCallback
    received: int = 0
    total: int | None = None
    etag: str | None = None
    is_complete: bool = False
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def restart(self) -> None:
        """Forget what came: the content is another one, or the service cannot resume."""
        self.file.seek(0)
        self.file.truncate()
        self.received = 0
        self.digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Keep the next bytes."""
        self.file.write(chunk)
        self.digest.update(chunk)
        self.received += len(chunk)
        self.progress(self.received, self.total)

    def check(self, source: str) -> None:
        """Refuse a file that is cut off or damaged."""
        if self.total is not None and self.received != self.total:
            raise TransferError(f"{source} sent {self.received} bytes instead of {self.total}; nothing was kept")
        declared = _SHA256.fullmatch(self.etag or "")
        if declared and declared[1] != self.digest.hexdigest():
            raise TransferError(f"the bytes from {source} do not have the declared sha256; nothing was kept")


def download(
    connection: Connection, path: str, target: Path, *, params: Params | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Fetch a file to `target`, which appears only when every byte is there and has the declared sha256."""
    with _beside(target) as file:
        partial = _Partial(file, progress or _silent)
        while not partial.is_complete:
            connection.retrying(_fetch_some, connection, path, params, partial)
        partial.check(path)
    return target


@contextmanager
def _beside(target: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes `target`, unless something fails."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_some(connection: Connection, path: str, params: Params | None, partial: _Partial) -> None:
    """Receive until the end, or until the connection breaks with something gained."""
    before = partial.received
    try:
        with connection.http.stream("GET", path, params=given(params), headers=_wanted(partial)) as response:
            _begin(succeeded(response), partial)
            for chunk in response.iter_raw():  # as it comes: what a chunk size holds back would be lost
                partial.write(chunk)
    except httpx.TransportError:
        if partial.received <= before:
            raise
    else:
        partial.is_complete = True


def _wanted(partial: _Partial) -> dict[str, str]:
    # A compressed body could neither be resumed nor checked against its digest.
    headers = {"Accept-Encoding": "identity"}
    if partial.received and partial.etag:
        headers |= {"Range": f"bytes={partial.received}-", "If-Range": partial.etag}
    return headers


def _begin(response: httpx.Response, partial: _Partial) -> None:
    """Take the headers of an answer: the whole content, or the rest of it."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnexpectedAnswerError(f"{response.request.url} sent compressed content, which cannot be checked")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        _check_range(response, partial)
        return
    partial.restart()
    partial.etag = response.headers.get("etag")
    length = response.headers.get("content-length")
    partial.total = int(length) if length else None
    partial.progress(0, partial.total)


def _check_range(response: httpx.Response, partial: _Partial) -> None:
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) != partial.received or response.headers.get("etag") != partial.etag:
        raise UnexpectedAnswerError(f"{response.request.url} did not resume where it was asked to; try again")
