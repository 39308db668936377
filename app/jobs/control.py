"""/jobs/{id}/...: what a user asks of a job that is there."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from app.http.access import SubmitterOf
from app.http.bodies import parsed, read_body
from app.http.parts import PartsOf
from app.http.problems import declared
from app.jobs import service
from app.jobs.reading import full_resource
from app.jobs.schemas import JobChange
from app.jobs.spec_reading import read_spec
from app.jobs.submission import SPEC_FAILURES, IdempotencyKeyOf, admit, enqueue, once
from stillhouse.contract.failures import (
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    IllegalActionError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from stillhouse.contract.resources import Job
from stillhouse.contract.status import Status

router = APIRouter(tags=["jobs"])

KeepOf = Annotated[Literal["best", "none"], Query(
    description="`best` has the best student so far evaluated and exported: the job ends `cancelled`, with a model and "
    "a report that says where training stopped; without, when there was nothing to keep yet.",
)]
_FAILURES = declared(UnauthenticatedError, NotFoundError, IllegalActionError)
# With room for every label at its longest, escaped.
_MAX_CHANGE = 256 * 1024
_CHANGE_SCHEMA = {"schema": {"$ref": "#/components/schemas/JobChange"}}
_CHANGE_BODY: dict[str, Any] = {"requestBody": {
    "required": True,
    "content": {"application/merge-patch+json": _CHANGE_SCHEMA, "application/json": _CHANGE_SCHEMA},
}}


async def _change(request: Request) -> JobChange:
    return parsed(JobChange, await read_body(request, _MAX_CHANGE, InvalidRequestError))


@router.patch(
    "/jobs/{job_id}", openapi_extra=_CHANGE_BODY,
    responses=declared(UnauthenticatedError, NotFoundError, IllegalActionError, InvalidRequestError),
)
def change(caller: SubmitterOf, parts: PartsOf, job_id: str, wanted: Annotated[JobChange, Depends(_change)]) -> Job:
    """Change name, labels or priority of a job, by a merge patch (RFC 7396). Its priority only until it has ended."""
    with parts.db.writing() as session:
        row = service.change(session, caller.owner, job_id, wanted)
        job = full_resource(parts, session, row)
    if row.status is Status.QUEUED and "priority" in wanted.model_fields_set:
        parts.ringer.ring(row.queue, job_id)
    return job


@router.post(
    "/jobs/{job_id}/cancel", status_code=202,
    responses=declared(UnauthenticatedError, NotFoundError, IllegalActionError, InvalidRequestError),
)
def cancel(caller: SubmitterOf, parts: PartsOf, job_id: str, keep: KeepOf = "none") -> Job:
    """Cancel a job: at once while it waits; as soon as its worker has heard while it runs. Twice is no error."""
    with parts.db.writing() as session:
        row = service.cancel(session, caller.owner, job_id, keep=None if keep == "none" else keep)
        job = full_resource(parts, session, row)
    if row.status is Status.QUEUED:
        parts.ringer.ring(row.queue, job_id)
    parts.announcer.announce(job_id)
    return job


@router.post("/jobs/{job_id}/pause", status_code=202, responses=_FAILURES)
def pause(caller: SubmitterOf, parts: PartsOf, job_id: str) -> Job:
    """Pause a job: at once while it waits; with a checkpoint, giving its slot back, while it runs."""
    with parts.db.writing() as session:
        job = full_resource(parts, session, service.pause(session, caller.owner, job_id))
    parts.announcer.announce(job_id)
    return job


@router.post("/jobs/{job_id}/resume", status_code=202, responses=_FAILURES)
def resume(caller: SubmitterOf, parts: PartsOf, job_id: str) -> Job:
    """Queue a paused job again. It goes on from its checkpoint, as if it had never stopped. Twice is no error."""
    with parts.db.writing() as session:
        row = service.resume(session, caller.owner, job_id)
        job = full_resource(parts, session, row)
    if row.status is Status.QUEUED:
        parts.ringer.ring(row.queue, job_id)
    parts.announcer.announce(job_id)
    return job


@router.post(
    "/jobs/{job_id}/retry", status_code=202, response_model=Job,
    responses=declared(
        *SPEC_FAILURES, NotFoundError, IllegalActionError, IdempotencyMismatchError, IdempotencyInFlightError,
    ),
)
def retry(caller: SubmitterOf, parts: PartsOf, job_id: str, idempotency_key: IdempotencyKeyOf = None) -> Response:
    """Submit the spec of a job that has ended again, as a new job. It is refused where an input is gone."""
    with parts.db.reading() as session:
        retried = service.to_retry(session, caller.owner, job_id)
    sent = read_spec(json.dumps(retried.spec).encode())

    def make() -> dict[str, Any]:
        admit(parts, caller.owner, sent.spec)
        return enqueue(parts, caller, sent, idempotency_key, retried=retried)

    return once(
        parts, caller.owner, request=f"POST /jobs/{job_id}/retry", body=b"", key=idempotency_key, make=make
    )
