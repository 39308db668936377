"""What `POST /jobs` and `POST /plans` share: how a spec comes in, what it is checked against, what may be wrong."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.artifacts import queries as artifact_queries
from app.http.bodies import read_body
from app.http.parts import Parts, PartsOf
from app.jobs import admission
from stillhouse.contract.failures import (
    EmptyDataError,
    InputShapeMismatchError,
    InvalidRequestError,
    InvalidSpecError,
    LabelCountMismatchError,
    MalformedJsonError,
    OutputWidthMismatchError,
    SpecTooLargeError,
    StillhouseError,
    StorageFullError,
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
    UnavailableError,
)


async def _spec_body(request: Request, parts: PartsOf) -> bytes:
    return await read_body(request, parts.settings.max_spec_bytes, SpecTooLargeError)


SpecBodyOf = Annotated[bytes, Depends(_spec_body)]


def admit(parts: Parts, owner: str, spec: JobSpec) -> None:
    """Check the spec against the headers of the owner's artifacts. Raises the failure that names what cannot work."""
    with parts.db.reading() as session:
        rows = session.scalars(artifact_queries.several(owner, list(spec.artifacts().values()))).all()
    admission.check(spec, {row.id: row for row in rows})
