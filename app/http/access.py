"""Who is asking: the owner behind a request's API key, and what the key may do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from app.http.guard import EXTRA_HEADERS
from app.http.parts import Parts, PartsOf
from app.keys.service import authenticate
from app.quotas.service import limit
from stillhouse.contract.failures import MissingScopeError, RateLimitedError, UnauthenticatedError
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


async def _caller(
    request: Request, needed: SecurityScopes, parts: PartsOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise UnauthenticatedError
    return await parts.turns.read(_identify, request, parts, credentials.credentials, needed.scopes)


def _identify(request: Request, parts: Parts, secret: str, scopes: Sequence[str]) -> Caller:
    key = authenticate(parts.db, secret)
    caller = Caller(
        owner=key.owner, key_id=key.id, scopes=frozenset(key.scopes.split()),
        limits=KeyLimits.model_validate(key.limits or {}),
    )
    _count(request, parts, caller)
    for scope in scopes:
        caller.demand(scope)
    return caller


def _count(request: Request, parts: Parts, caller: Caller) -> None:
    """Count the request against the key's rate. Raises RateLimitedError."""
    per_minute = limit(caller.limits.requests_per_minute, parts.settings.max_requests_per_minute)
    if per_minute is None:
        return
    rate = parts.rates.count(caller.key_id, per_minute)
    request.scope["state"][EXTRA_HEADERS] = rate.headers()
    if rate.is_exceeded:
        raise RateLimitedError(
            f"This key may send {per_minute} requests at once and then as many each minute; the next one is answered "
            f"in {rate.retry_seconds:.1f} s.", retry_after=rate.retry_seconds,
        )


_READ: Scope = "read"
_SUBMIT: Scope = "submit"
_ADMIN: Scope = "admin"
# Whoever holds a key, whatever it may do.
HolderOf = Annotated[Caller, Security(_caller)]
ReaderOf = Annotated[Caller, Security(_caller, scopes=[_READ])]
SubmitterOf = Annotated[Caller, Security(_caller, scopes=[_SUBMIT])]
AdminOf = Annotated[Caller, Security(_caller, scopes=[_ADMIN])]
