"""Who is asking: the owner behind a request's API key, and what the key may do."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from app.http.parts import PartsOf
from app.keys.service import authenticate
from stillhouse.contract.failures import MissingScopeError, UnauthenticatedError
from stillhouse.contract.resources import KeyLimits, Scope

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk_...`")


@dataclass(frozen=True)
class Caller:
    """Whom a request acts for. All that it can see and change is this owner's."""

    owner: str
    key_id: str
    scopes: frozenset[str]
    limits: KeyLimits

    def demand(self, scope: str) -> None:
        """Raise MissingScopeError unless the key has the scope."""
        if scope not in self.scopes:
            had = ", ".join(sorted(self.scopes))
            raise MissingScopeError(
                f"This takes an API key with the scope {scope}; this one has {had}. An administrator makes one with "
                f"`stillhouse keys create NAME --scope {scope}`."
            )


def _caller(
    needed: SecurityScopes, parts: PartsOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise UnauthenticatedError
    key = authenticate(parts.db, credentials.credentials)
    caller = Caller(
        owner=key.owner, key_id=key.id, scopes=frozenset(key.scopes.split()),
        limits=KeyLimits.model_validate(key.limits or {}),
    )
    for scope in needed.scopes:
        caller.demand(scope)
    return caller


_READ: Scope = "read"
_SUBMIT: Scope = "submit"
_ADMIN: Scope = "admin"
# Whoever holds a key, whatever it may do.
HolderOf = Annotated[Caller, Security(_caller)]
ReaderOf = Annotated[Caller, Security(_caller, scopes=[_READ])]
SubmitterOf = Annotated[Caller, Security(_caller, scopes=[_SUBMIT])]
AdminOf = Annotated[Caller, Security(_caller, scopes=[_ADMIN])]
