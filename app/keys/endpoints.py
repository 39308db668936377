"""/keys: API keys are made, listed and revoked."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from app.http.access import CallerOf
from app.http.bodies import read_body
from app.http.paging import CursorOf, LimitOf
from app.http.parts import PartsOf
from app.http.problems import declared
from app.keys import service
from app.keys.schemas import NewKey, created_key_resource, key_resource
from stillhouse.contract.failures import (
    FieldError,
    InvalidCursorError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from stillhouse.contract.resources import ApiKey, CreatedApiKey, Page

router = APIRouter(tags=["keys"])

_MAX_BODY = 4096
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewKey"}}},
    },
}


async def _new_key(request: Request) -> NewKey:
    body = await read_body(request, _MAX_BODY, InvalidRequestError)
    try:
        return NewKey.model_validate_json(body)
    except ValidationError as error:
        fields = [
            FieldError(pointer="/" + "/".join(map(str, wrong["loc"])), detail=wrong["msg"])
            for wrong in error.errors(include_url=False)
        ]
        raise InvalidRequestError(
            "; ".join(f"{field.pointer}: {field.detail}" for field in fields), param=fields[0].pointer, errors=fields
        ) from error


@router.post(
    "/keys", status_code=201, openapi_extra=_BODY, responses=declared(UnauthenticatedError, InvalidRequestError),
)
def create_key(
    caller: CallerOf, parts: PartsOf, response: Response, wanted: Annotated[NewKey, Depends(_new_key)]
) -> CreatedApiKey:
    """Make an API key. Its secret is in this answer only."""
    owner = wanted.owner or caller.owner
    if owner != caller.owner and not caller.is_admin:
        raise InvalidRequestError("Only an administrator's key makes keys for another owner.", param="/owner")
    with parts.db.writing() as session:
        row, secret = service.create(session, owner=owner, name=wanted.name)
    response.headers["Location"] = f"/keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return created_key_resource(row, secret)


@router.get("/keys", responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError))
def list_keys(caller: CallerOf, parts: PartsOf, cursor: CursorOf = None, limit: LimitOf = 50) -> Page[ApiKey]:
    """List API keys, revoked ones too, newest first. Secrets are not kept, so they are not told."""
    with parts.db.reading() as session:
        found = service.page(session, caller.owner, cursor=cursor, limit=limit)
        data = [key_resource(row) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


@router.delete("/keys/{key_id}", status_code=204, responses=declared(UnauthenticatedError, NotFoundError))
def revoke_key(caller: CallerOf, parts: PartsOf, key_id: str) -> None:
    """Revoke an API key. It stays listed; once more changes nothing."""
    with parts.db.writing() as session:
        service.revoke(session, caller.owner, key_id)
