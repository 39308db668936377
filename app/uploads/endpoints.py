"""/uploads: files come in over as many requests as it takes, by the tus protocol. The headers are in `protocol`."""

from functools import partial
from typing import Final

import anyio
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.artifacts.keeping import FAILURES
from app.http.access import ReaderOf, SubmitterOf
from app.http.bodies import pour, refuse_early
from app.http.parts import Parts, PartsOf
from app.http.problems import declared
from app.quotas import service as quotas
from app.uploads import protocol, service
from app.uploads.models import UploadRow
from app.uploads.receiving import Checksum, Receiving
from app.uploads.schemas import upload_resource
from app.uploads.service import Hold
from stillhouse.contract.failures import (
    ChecksumMismatchError,
    InvalidRequestError,
    NotFoundError,
    RequestTimeoutError,
    StillhouseError,
    StorageQuotaExceededError,
    TooManyPartsError,
    TusVersionError,
    UnauthenticatedError,
    UnsupportedChecksumError,
    UnsupportedMediaTypeError,
    UploadGoneError,
    UploadIncompleteError,
    UploadLockedError,
    UploadOffsetError,
    UploadTooLargeError,
)
from stillhouse.contract.resources import Upload

router = APIRouter(tags=["uploads"], prefix=protocol.PATH)

_BYTES = {"requestBody": {
    "description": "Bytes of the file.",
    "content": {protocol.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}}
_NO_STORE = {"Cache-Control": "no-store"}
_RECEIVING: Final[tuple[type[StillhouseError], ...]] = (
    UploadTooLargeError, UploadIncompleteError, UnsupportedChecksumError, ChecksumMismatchError, UploadLockedError,
    RequestTimeoutError,
    *FAILURES,
)


def _header(name: str, about: str, *, required: bool = True) -> dict[str, object]:
    return {"name": name, "in": "header", "required": required, "description": about, "schema": {"type": "string"}}


_VERSION = _header("Tus-Resumable", f"{protocol.VERSION}.")
_CHECKSUM = _header("Upload-Checksum", "Algorithm and base64 digest of this request's body.", required=False)


@router.options("", include_in_schema=False)
@router.options("/{upload_id}", include_in_schema=False)
def discover(parts: PartsOf) -> Response:
    """What this server speaks; needs no key."""
    return Response(status_code=204, headers={
        "Tus-Extension": protocol.EXTENSIONS, "Tus-Max-Size": str(parts.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(protocol.ALGORITHMS),
    })


@router.post(
    "", status_code=201, response_class=Response,
    openapi_extra={**_BYTES, "parameters": [
        _VERSION, _header("Upload-Length", "Size of the file in bytes."),
        _header("Upload-Metadata", "Keys with base64 values: `kind` (teacher or data), and as far as known `name`, "
                                   "`format` and `sha256`, as POST /artifacts takes them."),
        _CHECKSUM,
    ]},
    responses=declared(
        UnauthenticatedError, TusVersionError, InvalidRequestError, StorageQuotaExceededError, *_RECEIVING,
    ),
)
async def begin(request: Request, caller: SubmitterOf, parts: PartsOf) -> Response:
    """Begin an upload; Location is where its bytes go. The body may hold the first of them."""
    protocol.check_version(request.headers)
    checksum = protocol.checksum_of(request.headers)
    row = await run_in_threadpool(partial(
        service.begin, parts.db, owner=caller.owner, wanted=protocol.wanted_of(request.headers),
        length=protocol.length_of(request.headers), metadata_header=request.headers.get("upload-metadata", ""),
        max_bytes=parts.settings.max_upload_bytes, hours=parts.settings.upload_hours,
        max_stored=quotas.limit(caller.limits.stored_bytes, parts.settings.max_stored_bytes),
    ))
    if protocol.has_bytes(request.headers):
        row = await _add(request, parts, caller.owner, row.id, received=0, checksum=checksum)
    headers = {"Location": f"{protocol.PATH}/{row.id}", **protocol.state_headers(row)}
    return Response(status_code=201, headers=headers)


@router.head(
    "/{upload_id}", response_class=Response, openapi_extra={"parameters": [_VERSION]},
    responses=declared(UnauthenticatedError, NotFoundError, TusVersionError, UploadGoneError, *FAILURES),
)
def ask(request: Request, caller: SubmitterOf, parts: PartsOf, upload_id: str) -> Response:
    """Tell where the upload goes on: Upload-Offset."""
    protocol.check_version(request.headers)
    row = _looked_after(parts, caller.owner, upload_id)
    if row.error is not None:
        raise UploadGoneError
    told = {"Upload-Length": str(row.length), **protocol.state_headers(row), **_NO_STORE}
    if row.metadata_header:
        told["Upload-Metadata"] = row.metadata_header
    return Response(headers=told)


@router.get("/{upload_id}", responses=declared(UnauthenticatedError, NotFoundError))
def show(caller: ReaderOf, parts: PartsOf, upload_id: str, response: Response) -> Upload:
    """Tell what became of an upload: its artifact, or why it was refused. Not part of the protocol."""
    response.headers.update(_NO_STORE)
    return upload_resource(_looked_after(parts, caller.owner, upload_id))


@router.patch(
    "/{upload_id}", status_code=204, response_class=Response,
    openapi_extra={**_BYTES, "parameters": [
        _VERSION, _header("Upload-Offset", "Where the body begins in the file: what HEAD told."), _CHECKSUM,
    ]},
    responses=declared(
        UnauthenticatedError, NotFoundError, TusVersionError, InvalidRequestError, UnsupportedMediaTypeError,
        UploadOffsetError, UploadGoneError, TooManyPartsError, *_RECEIVING,
    ),
)
async def add(request: Request, caller: SubmitterOf, parts: PartsOf, upload_id: str) -> Response:
    """Add bytes. What came before a connection broke is kept. With the last byte the upload becomes an artifact."""
    protocol.check_version(request.headers)
    protocol.check_media_type(request.headers)
    checksum, offset = protocol.checksum_of(request.headers), protocol.offset_of(request.headers)
    row = await run_in_threadpool(_find, parts, caller.owner, upload_id)
    if row.artifact_id is None or offset != row.length:  # else it was sent twice, as its answer was lost
        row = await _add(request, parts, caller.owner, upload_id, received=offset, checksum=checksum)
    return Response(status_code=204, headers=protocol.state_headers(row))


@router.delete(
    "/{upload_id}", status_code=204, openapi_extra={"parameters": [_VERSION]},
    responses=declared(UnauthenticatedError, NotFoundError, TusVersionError),
)
def terminate(request: Request, caller: SubmitterOf, parts: PartsOf, upload_id: str) -> None:
    """Drop an upload and all bytes that have come. An artifact that it has become stays."""
    protocol.check_version(request.headers)
    service.terminate(parts.db, owner=caller.owner, upload_id=upload_id)


def _find(parts: Parts, owner: str, upload_id: str) -> UploadRow:
    with parts.db.reading() as session:
        return service.find(session, owner, upload_id)


def _looked_after(parts: Parts, owner: str, upload_id: str) -> UploadRow:
    """The upload, finished where that was left undone."""
    row = _find(parts, owner, upload_id)
    service.finish_if_whole(parts.db, parts.stores, row, parts.settings.upload_hours)
    return _find(parts, owner, upload_id)


async def _add(
    request: Request, parts: Parts, owner: str, upload_id: str, *, received: int, checksum: Checksum | None
) -> UploadRow:
    hold = await run_in_threadpool(partial(
        service.hold, parts.db, owner=owner, upload_id=upload_id, received=received, hours=parts.settings.upload_hours
    ))
    try:
        hold = await _receive(request, parts, hold, checksum)
        if hold.is_whole:
            await run_in_threadpool(service.finish, parts.db, parts.stores, hold)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(service.release, parts.db, hold)
    return await run_in_threadpool(_find, parts, owner, upload_id)


async def _receive(request: Request, parts: Parts, hold: Hold, checksum: Checksum | None) -> Hold:
    missing = hold.length - hold.received
    refuse_early(request, missing, UploadTooLargeError)
    receiving = Receiving(parts.db, parts.stores.files, hold, checksum)
    is_whole = False
    try:
        await pour(request, receiving.write, missing, UploadTooLargeError)
        is_whole = True
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(partial(receiving.close, is_whole=is_whole))
    return receiving.hold
