"""What `POST /jobs` and `POST /plans` share: how a spec comes in, what it is checked against, what may be wrong.

And how a job is made of it, once, by a submit or a retry.
"""

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.artifacts import queries as artifact_queries
from app.http.access import Caller
from app.http.bodies import read_body
from app.http.parts import Parts, PartsOf
from app.idempotency import service as idempotency
from app.jobs import admission, service
from app.jobs.models import JobRow
from app.jobs.schemas import job_resource
from app.jobs.spec_reading import SentSpec
from app.queue import queue_of
from app.quotas import service as quotas
from stillhouse.contract.failures import (
    EmptyDataError,
    InputShapeMismatchError,
    InvalidRequestError,
    InvalidSpecError,
    LabelCountMismatchError,
    MalformedJsonError,
    OutputWidthMismatchError,
    RequestTimeoutError,
    SpecTooLargeError,
    StillhouseError,
    StorageFullError,
    StorageQuotaExceededError,
    TooManyQueuedJobsError,
    UnauthenticatedError,
    UnavailableError,
    UnknownArchitectureError,
    UnknownArrayError,
    UnknownArtifactError,
    UnknownColumnError,
    UnknownFolderError,
    UnknownLabelError,
    UnusableArrayError,
    UnusableColumnError,
    UnusableLabelsError,
    WrongArtifactKindError,
)
from stillhouse.contract.recipes import applied
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Kind

# For OpenAPI: the body is read by hand, for its length and for pointers of our own.
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
    },
}
SPEC_FAILURES: tuple[type[StillhouseError], ...] = (
    UnauthenticatedError, MalformedJsonError, SpecTooLargeError, InvalidSpecError, InvalidRequestError,
    UnknownArtifactError, WrongArtifactKindError, LabelCountMismatchError, UnknownArrayError, UnusableArrayError,
    UnknownColumnError, UnusableColumnError, UnknownFolderError, UnusableLabelsError, UnknownLabelError,
    EmptyDataError, UnknownArchitectureError, InputShapeMismatchError, OutputWidthMismatchError, StorageFullError,
    UnavailableError, RequestTimeoutError, StorageQuotaExceededError, TooManyQueuedJobsError,
)


async def _spec_body(request: Request, parts: PartsOf) -> bytes:
    return await read_body(request, parts.settings.max_spec_bytes, SpecTooLargeError)


SpecBodyOf = Annotated[bytes, Depends(_spec_body)]
IdempotencyKeyOf = Annotated[str | None, Header(
    min_length=1, max_length=255,
    description="Any string of your own. The same key with the same body is answered as the first time, and makes no "
    "second job.",
)]


def admit(parts: Parts, owner: str, spec: JobSpec) -> None:
    """Check the spec against the service's limit and the headers of the owner's artifacts.

    Raises the failure that names what cannot work.
    """
    _refuse_too_long(spec.max_runtime, parts.settings.max_runtime_seconds)
    with parts.db.reading() as session:
        rows = session.connection().execute(
            artifact_queries.headers(), {"owner": owner, "ids": list(spec.artifacts().values())}
        ).all()
    admission.check(spec, {row.id: row for row in rows})


def _refuse_too_long(asked: float | None, most: float) -> None:
    if asked and most and asked > most:
        raise InvalidSpecError(
            f"No job may run for longer than {most:,.10g} s here; give no more, or leave max_runtime out.",
            param="/max_runtime",
        )


def hold_place(session: Session, parts: Parts, caller: Caller, kind: Kind = "job") -> None:
    """Make sure, until the commit, that the caller's owner may queue one more.

    What jobs make is stored whatever the quota, so that none fails at its end; who is beyond it begins none.
    Raises StorageQuotaExceededError, TooManyQueuedJobsError.
    """
    if kind == "job":
        most = quotas.limit(caller.limits.stored_bytes, parts.settings.max_stored_bytes)
        quotas.check_room(session, caller.owner, most)
    most = quotas.limit(caller.limits.queued_jobs, parts.settings.max_queued_jobs)
    quotas.hold_place(session, caller.owner, most, kind)


def once(
    parts: Parts, owner: str, *, request: str, body: bytes, key: str | None, make: Callable[[], dict[str, Any]]
) -> Response:
    """Make a job; or answer a request with this Idempotency-Key as the first one was answered.

    `request` is method and path. Raises IdempotencyMismatchError, IdempotencyInFlightError and what `make` raises.
    """
    if key is not None:
        earlier = idempotency.begin(
            parts.db, owner=owner, key=key, request=request, body_sha256=hashlib.sha256(body).hexdigest(),
            hours=parts.settings.idempotency_hours,
        )
        if earlier is not None:
            return _submitted(earlier.status_code, earlier.response, {"Idempotent-Replayed": "true"})
    is_submitted = False
    try:
        job = make()
        is_submitted = True
    finally:
        if not is_submitted and key is not None:
            idempotency.abandon(parts.db, owner=owner, key=key)
    return _submitted(HTTPStatus.ACCEPTED, job)


def enqueue(
    parts: Parts, caller: Caller, sent: SentSpec, key: str | None, *, retried: JobRow | None = None
) -> dict[str, Any]:
    """Add the job, keep the answer for its Idempotency-Key, and ring.

    Raises UnknownArtifactError, StorageQuotaExceededError, TooManyQueuedJobsError.
    """
    queue = queue_of(sent.spec, parts.settings.default_queue)
    with parts.db.writing() as session:
        hold_place(session, parts, caller)
        row = service.submit(
            session, owner=caller.owner, spec=sent.spec, raw=sent.raw, queue=queue,
            max_running=caller.limits.running_jobs, retried=retried,
        )
        place = service.queue_place(session, row, parts.settings.max_running_jobs)
        job = job_resource(
            row, stalled_seconds=parts.settings.stalled_seconds, place=place, recipe=applied(sent.spec)
        ).model_dump(mode="json")
        if key is not None:
            idempotency.finish(session, owner=caller.owner, key=key, status_code=HTTPStatus.ACCEPTED, response=job)
    parts.ringer.ring(queue, row.id)
    return job


def _submitted(status_code: int, job: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(job, status_code, headers={"Location": f"/jobs/{job['id']}", **(headers or {})})
