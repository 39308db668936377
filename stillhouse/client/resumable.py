"""Large files go up by tus 1.0: what was sent before a connection, the client or the service broke is not sent again.

Where an upload stands is remembered in the user's cache folder, by what is sent to whom: a later call, also of another
process, goes on from there.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from time import sleep
from typing import BinaryIO

import stamina

from stillhouse.client.connection import Connection, Params, given, may_pass, parsed, succeeded
from stillhouse.client.errors import StillhouseApiError, TransferError, UnexpectedAnswerError, error_of_failure
from stillhouse.client.progress import ProgressCallback
from stillhouse.contract.resources import Artifact, Upload

# Bytes of one request. Small enough for the limits of proxies.
PIECE_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
# Seconds without a byte gained after which it is given up: longer than a service holds what a broken request left.
PATIENCE = 60
POLL = 0.5
_VERSION = {"Tus-Resumable": "1.0.0"}
_ENDED = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_AGAIN = frozenset({"upload_locked", "upload_offset_mismatch"})


class NotResumableError(Exception):
    """The service is of a version that knows no resumable uploads."""


def send(
    connection: Connection, file: BinaryIO, *, params: Params, sha256: str, progress: ProgressCallback
) -> Artifact:
    """Have a file as an artifact, going on where an earlier call stopped. Raises NotResumableError."""
    size = os.fstat(file.fileno()).st_size
    note = _note_of(connection, params, sha256, size)
    path = _remembered(connection, note) or _begin(connection, params, sha256, size)
    note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    note.write_text(json.dumps({"path": path}))
    try:
        _send_all(connection, file, path, size, progress)
    except StillhouseApiError as error:
        if error.status != HTTPStatus.GONE:  # else it has ended, and tells below how
            raise
    upload = _ended(connection, path)
    note.unlink(missing_ok=True)
    if upload.error is not None:
        raise error_of_failure(upload.error, path)
    return connection.read(Artifact, f"/artifacts/{upload.artifact_id}")


def cache_folder() -> Path:
    """Where unfinished uploads are remembered."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stillhouse" / "uploads"


def _note_of(connection: Connection, params: Params, sha256: str, size: int) -> Path:
    what = json.dumps([connection.url, given(params), sha256, size], sort_keys=True)
    return cache_folder() / f"{hashlib.sha256(what.encode()).hexdigest()}.json"


def _remembered(connection: Connection, note: Path) -> str | None:
    """Path of an upload that was begun and that the service still has."""
    try:
        path = str(json.loads(note.read_text())["path"])
        connection.request("HEAD", path, headers=_VERSION)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    except StillhouseApiError as error:
        if error.status not in _ENDED:
            raise
        return None
    return path


def _begin(connection: Connection, params: Params, sha256: str, size: int) -> str:
    values = {**{name: str(value) for name, value in given(params).items()}, "sha256": sha256}
    told = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
    headers = {**_VERSION, "Upload-Length": str(size), "Upload-Metadata": told}
    try:
        response = connection.request("POST", "/uploads", headers=headers)
    except StillhouseApiError as error:
        if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            raise NotResumableError from error
        raise
    path = response.headers.get("location", "")
    if not path.startswith("/"):
        raise UnexpectedAnswerError(f"{response.request.url} did not say where the bytes go")
    return str(path)


def _send_all(connection: Connection, file: BinaryIO, path: str, size: int, progress: ProgressCallback) -> None:
    offset = -1
    while offset < size:
        retrying = stamina.retry_context(
            on=_may_go_on, attempts=None, timeout=PATIENCE, wait_initial=0.2, wait_max=5.0,
        )
        with connection.plain_errors():
            for attempt in retrying:
                with attempt:
                    offset = _send_piece(connection, file, path, size, progress)


def _send_piece(connection: Connection, file: BinaryIO, path: str, size: int, progress: ProgressCallback) -> int:
    """Ask where it goes on, and send one piece from there; where it goes on then."""
    told = succeeded(connection.http.head(path, headers=_VERSION))
    offset = int(told.headers["upload-offset"])
    progress(offset, size)
    length = min(PIECE_BYTES, size - offset)
    if not length:
        return offset
    response = succeeded(connection.http.patch(path, content=_chunks(file, offset, length, size, progress), headers={
        **_VERSION, "Upload-Offset": str(offset), "Content-Length": str(length),
        "Content-Type": "application/offset+octet-stream",
    }))
    return int(response.headers["upload-offset"])


def _chunks(file: BinaryIO, offset: int, length: int, size: int, progress: ProgressCallback) -> Iterator[bytes]:
    file.seek(offset)
    end = offset + length
    while offset < end:
        chunk = file.read(min(CHUNK_BYTES, end - offset))
        if not chunk:
            raise TransferError(f"{file.name} changed its size while it was being sent; send it again")
        yield chunk
        offset += len(chunk)
        progress(offset, size)


def _may_go_on(error: Exception) -> bool:
    return may_pass(error) or (isinstance(error, StillhouseApiError) and error.code in _AGAIN)


def _ended(connection: Connection, path: str) -> Upload:
    while True:
        upload = parsed(Upload, connection.request("GET", path))
        if upload.artifact_id is not None or upload.error is not None:
            return upload
        sleep(POLL)
