"""/jobs: submitted, listed, watched; their results."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.artifacts.endpoints import stored_content
from app.artifacts.models import ArtifactRow
from app.http.access import Caller, ReaderOf, SubmitterOf
from app.http.downloads import RESPONSES, disposition, names_etag, serve
from app.http.paging import CursorOf, LimitOf
from app.http.parts import Parts, PartsOf
from app.http.preferences import wait_seconds
from app.http.problems import declared
from app.http.seats import SeatedResponse
from app.jobs import service
from app.jobs.models import JobRow
from app.jobs.reading import standing_otherwise
from app.jobs.schemas import attempt_log, attempt_resource, checkpoint_resource, job_resource
from app.jobs.spec_reading import read_spec
from app.jobs.submission import SPEC_BODY, SPEC_FAILURES, IdempotencyKeyOf, SpecBodyOf, admit, enqueue, once
from stillhouse.contract.events import RecordedEvent
from stillhouse.contract.failures import (
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    InvalidCursorError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    RangeNotSatisfiableError,
    TooManyStreamsError,
    UnauthenticatedError,
)
from stillhouse.contract.report import Report
from stillhouse.contract.resources import Attempt, AttemptLog, Checkpoint, Job, MetricSeries, ModelFormat, Page
from stillhouse.contract.status import TERMINAL, Status

router = APIRouter(tags=["jobs"])

_SSE = "text/event-stream"
_SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}
_ROLES: dict[ModelFormat, str] = {"zip": "bundle", "safetensors": "safetensors", "onnx": "onnx"}
_MAX_SEQ = 2**62

SeqOf = Annotated[int, Query(ge=0, lt=_MAX_SEQ, description="Only events with a `seq` above this.")]
LastEventIdOf = Annotated[str, Header(max_length=64, description="As EventSource sends it; wins over `after`.")]
# Seconds that the answer to GET /jobs/{id} may be waited for.
MOST_WAIT = 60
PreferOf = Annotated[str, Header(
    description="`wait=N` (RFC 7240) answers when the job has changed, or differs from what If-None-Match names, or "
    f"after N seconds, of at most {MOST_WAIT}; at once when it has ended.",
)]
IfNoneMatchOf = Annotated[str, Header(description="ETags of what the client knows; answered with 304 while it holds.")]
LabelsOf = Annotated[
    Sequence[str], Query(max_length=16, description="Only jobs with this label, as key:value; may be repeated.")
]


@router.post(
    "/jobs", status_code=202, openapi_extra=SPEC_BODY, response_model=Job,
    responses=declared(*SPEC_FAILURES, IdempotencyMismatchError, IdempotencyInFlightError),
)
async def submit(
    caller: SubmitterOf, parts: PartsOf, body: SpecBodyOf, idempotency_key: IdempotencyKeyOf = None
) -> Response:
    """Submit a distillation job. It is checked against the headers of its artifacts, and queued."""
    return await parts.turns.write(_submit, caller, parts, body, idempotency_key)


def _submit(caller: Caller, parts: Parts, body: bytes, idempotency_key: str | None) -> Response:
    sent = read_spec(body)

    def make() -> dict[str, Any]:
        admit(parts, caller.owner, sent.spec)
        return enqueue(parts, caller, sent, idempotency_key)

    return once(parts, caller.owner, request="POST /jobs", body=body, key=idempotency_key, make=make)


@router.get("/jobs", responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError))
def list_jobs(
    caller: ReaderOf, parts: PartsOf, status: Annotated[Status | None, Query(description="Only these.")] = None,
    name: Annotated[str | None, Query(max_length=128, description="Only jobs of exactly this name.")] = None,
    label: LabelsOf = (), cursor: CursorOf = None, limit: LimitOf = 50,
) -> Page[Job]:
    """List jobs, newest first. Their files and their places in the queue are told one by one, by GET /jobs/{id}."""
    labels = dict(_split_label(text) for text in label)
    with parts.db.reading() as session:
        found = service.page(
            session, caller.owner, status=status, name=name, labels=labels, cursor=cursor, limit=limit
        )
    data = [job_resource(row, stalled_seconds=parts.settings.stalled_seconds) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def _split_label(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise InvalidRequestError("A label is given as key:value.", param="label")
    return key, value


@router.get(
    "/jobs/{job_id}", response_model=Job,
    responses={
        304: {"description": "The job stands as If-None-Match names it."},
        **declared(UnauthenticatedError, NotFoundError),
    },
)
async def show_job(
    caller: ReaderOf, parts: PartsOf, job_id: str, prefer: PreferOf = "", if_none_match: IfNoneMatchOf = "",
) -> Response:
    """Tell how a job stands; with `Prefer: wait=N`, when that has changed. The ETag changes with all that is told."""
    seconds = wait_seconds(prefer, usual=0, most=MOST_WAIT)
    found = await standing_otherwise(parts, caller.owner, job_id, known=if_none_match, seconds=seconds)
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if seconds:
        headers["Preference-Applied"] = f"wait={seconds}"
    if names_etag(if_none_match, found.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, media_type="application/json", headers=headers)


@router.get(
    "/jobs/{job_id}/events", response_model=Page[RecordedEvent],
    responses={
        200: {"content": {_SSE: {"schema": {"type": "string"}}}},
        204: {"description": "The job has ended, and there is nothing after the event that was named."},
        **declared(UnauthenticatedError, NotFoundError, InvalidRequestError, TooManyStreamsError),
    },
)
def events(
    caller: ReaderOf, parts: PartsOf, job_id: str, accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: LastEventIdOf = "", after: SeqOf = 0, limit: LimitOf = 200,
) -> Response | Page[RecordedEvent]:
    """Read a job's log: a page as JSON, or with `Accept: text/event-stream` live, until an event named `end`."""
    if last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id), _MAX_SEQ)
    with parts.db.reading() as session:
        job = service.find(session, caller.owner, job_id)
        if _SSE not in accept:
            return _events_page(session, job_id, after, limit)
    if job.status in TERMINAL and after >= job.last_seq:
        # EventSource takes this for the end and does not come back.
        return Response(status_code=HTTPStatus.NO_CONTENT)
    stream = parts.watching.watch(job_id, min(after, job.last_seq))
    return SeatedResponse(parts.seats, caller.key_id, stream, media_type=_SSE, headers=_SSE_HEADERS)


def _events_page(session: Session, job_id: str, after: int, limit: int) -> Page[RecordedEvent]:
    rows = service.events_after(session, job_id, after, limit + 1)
    return Page(data=[row.recorded() for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/jobs/{job_id}/metrics", responses=declared(UnauthenticatedError, NotFoundError))
def metrics(caller: ReaderOf, parts: PartsOf, job_id: str) -> list[MetricSeries]:
    """Read every metric of a job as a series over its steps."""
    with parts.db.reading() as session:
        service.find(session, caller.owner, job_id)
        return service.metrics(session, job_id)


@router.get("/jobs/{job_id}/attempts", responses=declared(UnauthenticatedError, NotFoundError))
def attempts(caller: ReaderOf, parts: PartsOf, job_id: str) -> list[Attempt]:
    """Read who had a go at the job, when, how that ended and why; oldest first."""
    with parts.db.reading() as session:
        service.find(session, caller.owner, job_id)
        return [attempt_resource(row) for row in service.attempts_without_logs(session, job_id)]


@router.get("/jobs/{job_id}/checkpoints", responses=declared(UnauthenticatedError, NotFoundError))
def checkpoints(caller: ReaderOf, parts: PartsOf, job_id: str) -> list[Checkpoint]:
    """Read which checkpoints are stored of a job, oldest first; none after its end. Each is an artifact."""
    with parts.db.reading() as session:
        job = service.find(session, caller.owner, job_id)
        return [checkpoint_resource(job, row, artifact) for row, artifact in service.checkpoints(session, job_id)]


@router.get("/jobs/{job_id}/logs", responses=declared(UnauthenticatedError, NotFoundError))
def logs(caller: ReaderOf, parts: PartsOf, job_id: str) -> list[AttemptLog]:
    """Read what the trainer printed, by attempt; kept after a crash too."""
    with parts.db.reading() as session:
        service.find(session, caller.owner, job_id)
        return [attempt_log(row) for row in service.attempts(session, job_id)]


@router.get(
    "/jobs/{job_id}/report", response_model=Report,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **declared(
            UnauthenticatedError, NotFoundError, NotReadyError, InvalidRequestError, RangeNotSatisfiableError
        ),
    },
)
def report(
    request: Request, caller: ReaderOf, parts: PartsOf, job_id: str,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    format: Annotated[str | None, Query(pattern="^(json|html)$", description="Wins over Accept.")] = None,  # noqa: A002 - as in the URL
) -> Response:
    """Read the report: JSON, or a self-contained HTML page with `?format=html` or `Accept: text/html`."""
    if format == "html" or (format is None and "text/html" in accept):
        _, row = _result(parts, caller, job_id, "report_html")
        shown = {**_REPORT_HEADERS, "Content-Disposition": disposition("inline", row.name)}
        return serve(request, stored_content(parts, row, row.name), shown)
    with parts.db.reading() as session:
        job = service.find(session, caller.owner, job_id)
    if job.report is None:
        raise _missing(job, "report")
    return JSONResponse(job.report)


@router.get(
    "/jobs/{job_id}/model", response_class=Response,
    responses={
        **RESPONSES,
        **declared(
            UnauthenticatedError, NotFoundError, NotReadyError, InvalidRequestError, RangeNotSatisfiableError
        ),
    },
)
def model(
    request: Request, caller: ReaderOf, parts: PartsOf, job_id: str,
    format: Annotated[ModelFormat, Query(description="`zip` is the whole bundle.")] = "zip",  # noqa: A002 - as in the URL
) -> Response:
    """Download the compressed model. Range, If-Range and If-None-Match work as in RFC 9110; the ETag is the sha256."""
    job, row = _result(parts, caller, job_id, _ROLES[format])
    return serve(request, stored_content(parts, row, f"{job.name or job.id}.{format}"))


def _result(parts: Parts, caller: Caller, job_id: str, role: str) -> tuple[JobRow, ArtifactRow]:
    """The job, and its file of a role."""
    with parts.db.reading() as session:
        job = service.find(session, caller.owner, job_id)
        files = service.files(session, job_id)
    if role not in files:
        raise _missing(job, role)
    return job, files[role]


def _missing(job: JobRow, what: str) -> NotReadyError | NotFoundError:
    if job.status in TERMINAL:
        return NotFoundError(f"The job has {job.status} without a {what}.")
    return NotReadyError(f"The job is {job.status}; its {what} comes when it has succeeded.")
