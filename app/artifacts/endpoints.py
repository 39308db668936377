"""/artifacts: files come in as raw streamed bodies, are inspected, listed, downloaded and deleted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.artifacts import service
from app.artifacts.keeping import FAILURES, Wanted, check_format, keep
from app.artifacts.models import ArtifactRow
from app.artifacts.schemas import artifact_resource
from app.artifacts.service import Intake
from app.http.access import ReaderOf, SubmitterOf
from app.http.bodies import declared_length, pour, refuse_early
from app.http.downloads import MEDIA_TYPES, RESPONSES, Content, serve
from app.http.paging import CursorOf, LimitOf
from app.http.parts import Parts, PartsOf
from app.http.problems import declared
from app.quotas import service as quotas
from app.soft_labels.service import usage
from stillhouse.contract.failures import (
    ArtifactInUseError,
    InvalidCursorError,
    InvalidRequestError,
    NotFoundError,
    RangeNotSatisfiableError,
    RequestTimeoutError,
    StorageQuotaExceededError,
    UnauthenticatedError,
    UnavailableError,
    UnknownContentError,
    UploadIncompleteError,
    UploadTooLargeError,
)
from stillhouse.contract.resources import Artifact, ArtifactKind, Page, UploadFormat, UploadKind

router = APIRouter(tags=["artifacts"])

_RAW_BODY = {
    "requestBody": {
        "required": True, "description": "The file's bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}

KindOf = Annotated[UploadKind, Query(description="What the file is for.")]
FormatOf = Annotated[
    UploadFormat | None,
    Query(description="How it is written: safetensors, pytorch or onnx for a teacher; for data idx (gzipped or not), "
                      "npz, parquet, csv, or as tar (gzipped or not) or zip: images (a folder for each class) or "
                      "hugging_face (a saved folder of `datasets`). Guessed from the content when left out."),
]
NameOf = Annotated[str, Query(min_length=1, max_length=255, description="A name for people.")]
Sha256Of = Annotated[
    str | None, Query(
        pattern="^[0-9a-fA-F]{64}$",
        description="Digest that the bytes must have when they arrived. With an empty body: of bytes that you have "
        "stored before as an artifact of this kind and format, and need not send again.",
    ),
]


@router.post(
    "/artifacts", status_code=201, openapi_extra=_RAW_BODY,
    responses=declared(
        UnauthenticatedError, InvalidRequestError, UploadTooLargeError, UploadIncompleteError, *FAILURES,
        UnavailableError, UnknownContentError, RequestTimeoutError, StorageQuotaExceededError,
    ),
)
async def upload(
    request: Request, response: Response, caller: SubmitterOf, parts: PartsOf, kind: KindOf, *,
    format: FormatOf = None, name: NameOf = "unnamed", sha256: Sha256Of = None,  # noqa: A002 - as the column
) -> Artifact:
    """Upload a file as the raw body of the request. Its header is inspected; what is refused leaves nothing behind."""
    wanted = Wanted(kind, name, format, sha256)
    check_format(wanted)
    if sha256 is not None and declared_length(request) == 0:
        row = await run_in_threadpool(partial(
            service.store_again, parts.db, parts.stores, owner=caller.owner, sha256=sha256, kind=kind, name=name,
            format=format,
        ))
    else:
        row = await _receive(
            request, parts, caller.owner, wanted,
            max_stored=quotas.limit(caller.limits.stored_bytes, parts.settings.max_stored_bytes),
        )
    response.headers["Location"] = f"/artifacts/{row.id}"
    return artifact_resource(row)


async def _receive(
    request: Request, parts: Parts, owner: str, wanted: Wanted, *, max_stored: int | None
) -> ArtifactRow:
    limit = parts.settings.max_upload_bytes
    refuse_early(request, limit, UploadTooLargeError)
    room = await run_in_threadpool(_check_room, parts, owner, max_stored, declared_length(request) or 0)
    async with _intake(parts, owner, max_stored) as intake:
        if room is None or room >= limit:
            await pour(request, intake.write, limit, UploadTooLargeError)
        else:
            await pour(request, intake.write, room, StorageQuotaExceededError)
        return await run_in_threadpool(keep, intake, wanted)


def _check_room(parts: Parts, owner: str, max_stored: int | None, size: int) -> int | None:
    """Refuse a file by its declared length before it is sent; returns how many bytes there is room for, None for any.

    This spares the transfer. What counts is checked once more when the file is kept.
    """
    if max_stored is None:
        return None
    with parts.db.reading() as session:
        return quotas.check_room(session, owner, max_stored, adding=size)


@asynccontextmanager
async def _intake(parts: Parts, owner: str, max_stored: int | None) -> AsyncIterator[Intake]:
    """An intake whose beginning and end touch disk and database in a thread."""
    intake = await run_in_threadpool(Intake(parts.db, parts.stores.files, owner=owner, max_stored=max_stored).__enter__)
    try:
        yield intake
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(intake.__exit__)


@router.get("/artifacts", responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError))
def list_artifacts(
    caller: ReaderOf, parts: PartsOf, kind: Annotated[ArtifactKind | None, Query(description="Only these.")] = None,
    size: Annotated[int | None, Query(ge=0, lt=2**62, description="Only those of exactly so many bytes.")] = None,
    cursor: CursorOf = None, limit: LimitOf = 50,
) -> Page[Artifact]:
    """List artifacts, newest first."""
    with parts.db.reading() as session:
        found = service.page(session, caller.owner, kind=kind, size=size, cursor=cursor, limit=limit)
        used = usage(session, found.rows)
        data = [artifact_resource(row, used.get(row.id)) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


@router.get("/artifacts/{artifact_id}", responses=declared(UnauthenticatedError, NotFoundError))
def show_artifact(caller: ReaderOf, parts: PartsOf, artifact_id: str) -> Artifact:
    """Tell about an artifact: size, digest, and what its header says."""
    with parts.db.reading() as session:
        row = service.find(session, caller.owner, artifact_id)
        return artifact_resource(row, usage(session, [row]).get(row.id))


@router.get(
    "/artifacts/{artifact_id}/content", response_class=Response,
    responses={**RESPONSES, **declared(UnauthenticatedError, NotFoundError, RangeNotSatisfiableError)},
)
def download(request: Request, caller: ReaderOf, parts: PartsOf, artifact_id: str) -> Response:
    """Download the file. Range, If-Range and If-None-Match work as in RFC 9110; the ETag is the sha256."""
    with parts.db.reading() as session:
        row = service.find(session, caller.owner, artifact_id)
    service.note_use(parts.db, row)
    return serve(request, stored_content(parts, row, row.name))


def stored_content(parts: Parts, row: ArtifactRow, name: str) -> Content:
    """An artifact's bytes as a download of this name."""
    return Content(
        name=name, media_type=MEDIA_TYPES.get(row.format, "application/octet-stream"), size=row.size,
        sha256=row.sha256, read=partial(service.content, parts.stores, row),
    )


@router.delete(
    "/artifacts/{artifact_id}", status_code=204,
    responses=declared(UnauthenticatedError, NotFoundError, ArtifactInUseError),
)
def delete_artifact(caller: SubmitterOf, parts: PartsOf, artifact_id: str) -> None:
    """Delete an artifact, unless a job that has not ended needs it."""
    service.delete(parts.db, parts.stores, owner=caller.owner, artifact_id=artifact_id)
