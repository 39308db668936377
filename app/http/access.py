"""Who is asking: the owner behind a request's API key."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.http.parts import PartsOf
from app.keys.service import authenticate
from stillhouse.contract.failures import UnauthenticatedError

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk_...`")


@dataclass(frozen=True)
class Caller:
    """Whom a request acts for. All that it can see and change is this owner's."""

    owner: str
    is_admin: bool


def _caller(parts: PartsOf, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    if credentials is None:
        raise UnauthenticatedError
    key = authenticate(parts.db, credentials.credentials)
    return Caller(owner=key.owner, is_admin=key.is_admin)


CallerOf = Annotated[Caller, Depends(_caller)]
