"""/keys: API keys are made, listed, rotated and revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from app.http.access import AdminOf, Caller, HolderOf, ReaderOf
from app.http.bodies import parsed, read_body
from app.http.paging import CursorOf, LimitOf
from app.http.parts import PartsOf
from app.http.problems import declared
from app.keys import service
from app.keys.schemas import NewKey, Rotation, created_key_resource, held_key_resource, key_resource
from app.quotas import service as quotas
from stillhouse.contract.failures import (
    InvalidCursorError,
    InvalidRequestError,
    KeyEndedError,
    NotFoundError,
    RequestTimeoutError,
    UnauthenticatedError,
)
from stillhouse.contract.resources import ApiKey, CreatedApiKey, HeldKey, Page

router = APIRouter(tags=["keys"])

_MAX_BODY = 4096
OwnerOf = Annotated[
    str | None, Query(max_length=63, description="Whose keys: yours when left out; another's takes the scope admin.")
]


def _body(model: type[BaseModel], *, is_required: bool) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": schema}}}}


async def _new_key(request: Request) -> NewKey:
    return parsed(NewKey, await read_body(request, _MAX_BODY, InvalidRequestError))


async def _rotation(request: Request) -> Rotation:
    return parsed(Rotation, await read_body(request, _MAX_BODY, InvalidRequestError) or b"{}")


@router.post(
    "/keys", status_code=201, openapi_extra=_body(NewKey, is_required=True),
    responses=declared(UnauthenticatedError, InvalidRequestError, RequestTimeoutError),
)
def create_key(
    caller: AdminOf, parts: PartsOf, response: Response, wanted: Annotated[NewKey, Depends(_new_key)]
) -> CreatedApiKey:
    """Make an API key. Its secret is in this answer only."""
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise InvalidRequestError("A key cannot expire in the past.", param="/expires_at")
    with parts.db.writing() as session:
        row, secret = service.create(
            session, owner=wanted.owner or caller.owner, name=wanted.name, scopes=wanted.scopes,
            expires_at=wanted.expires_at, limits=wanted.limits.model_dump(exclude_none=True),
        )
    response.headers["Location"] = f"/keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return created_key_resource(row, secret)


@router.get("/keys", responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError))
def list_keys(
    caller: ReaderOf, parts: PartsOf, owner: OwnerOf = None, cursor: CursorOf = None, limit: LimitOf = 50
) -> Page[ApiKey]:
    """List API keys, revoked ones too, newest first. Secrets are not kept, so they are not told."""
    if owner is not None and owner != caller.owner:
        caller.demand("admin")
    with parts.db.reading() as session:
        found = service.page(session, owner or caller.owner, cursor=cursor, limit=limit)
        data = [key_resource(row) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


@router.get("/keys/current", responses=declared(UnauthenticatedError, NotFoundError))
def current_key(caller: HolderOf, parts: PartsOf) -> HeldKey:
    """The key that the request comes with: what it may do, its limits, and what is used of them. Takes no scope."""
    with parts.db.reading() as session:
        row = service.held(session, caller.owner, caller.key_id)
        return held_key_resource(
            row, quotas.in_force(caller.limits, parts.settings), quotas.used(session, caller.owner)
        )


@router.post(
    "/keys/{key_id}/rotate", openapi_extra=_body(Rotation, is_required=False),
    responses=declared(
        UnauthenticatedError, InvalidRequestError, RequestTimeoutError, NotFoundError, KeyEndedError
    ),
)
def rotate_key(
    caller: HolderOf, parts: PartsOf, response: Response, key_id: str,
    wanted: Annotated[Rotation, Depends(_rotation)],
) -> CreatedApiKey:
    """Replace a key's secret. The one before stays valid for the overlap, any older one ends now.

    Every key may rotate itself; another takes the scope admin.
    """
    owner = _reach(caller, key_id)
    with parts.db.writing() as session:
        row, secret, ends_at = service.rotate(session, owner, key_id, overlap_seconds=wanted.overlap_seconds)
    response.headers["Cache-Control"] = "no-store"
    return created_key_resource(row, secret, ends_at)


@router.delete("/keys/{key_id}", status_code=204, responses=declared(UnauthenticatedError, NotFoundError))
def revoke_key(caller: HolderOf, parts: PartsOf, key_id: str) -> None:
    """Revoke an API key. It stays listed; once more changes nothing.

    Every key may revoke itself; another takes the scope admin.
    """
    owner = _reach(caller, key_id)
    with parts.db.writing() as session:
        service.revoke(session, owner, key_id)


def _reach(caller: Caller, key_id: str) -> str | None:
    """Whose keys the caller may change: with the scope admin anybody's, else none but the one it holds."""
    if key_id == caller.key_id:
        return caller.owner
    caller.demand("admin")
    return None
