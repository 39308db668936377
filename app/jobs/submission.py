"""What `POST /jobs` and `POST /plans` share: how a spec comes in, what it is checked against, what may be wrong."""

from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.artifacts import queries as artifact_queries
from app.http.access import Caller
from app.http.bodies import read_body
from app.http.parts import Parts, PartsOf
from app.jobs import admission
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


def admit(parts: Parts, owner: str, spec: JobSpec) -> None:
    """Check the spec against the headers of the owner's artifacts. Raises the failure that names what cannot work."""
    with parts.db.reading() as session:
        rows = session.scalars(artifact_queries.several(owner, list(spec.artifacts().values()))).all()
    admission.check(spec, {row.id: row for row in rows})


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
