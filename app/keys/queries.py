"""Statements about API keys."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, bindparam, or_, select, update

from app.keys.models import ApiKeyRow, FormerSecretRow
from app.kit.clock import now
from app.kit.paging import after_cursor

_SECONDS_BETWEEN_TOUCHES = 60


@cache
def known() -> Select[str, str, str, dict[str, Any] | None, bool, bool]:
    """The key whose secret has the digest `sha256`, or had it before a rotation, unless revoked.

    Its id, owner, scopes and limits; whether it has expired, and whether its last use was noted lately. Built once, and
    of columns alone: every request asks it.
    """
    digest = bindparam("sha256", type_=ApiKeyRow.secret_sha256.type)
    former = select(FormerSecretRow.key_id).where(
        FormerSecretRow.secret_sha256 == digest, FormerSecretRow.valid_until > now()
    )
    has_expired = ApiKeyRow.expires_at.is_not(None) & (ApiKeyRow.expires_at <= now())
    columns = (ApiKeyRow.id, ApiKeyRow.owner, ApiKeyRow.scopes, ApiKeyRow.limits)
    return select(*columns, has_expired.label("has_expired"), (~_is_untouched()).label("is_noted")).where(
        or_(ApiKeyRow.secret_sha256 == digest, ApiKeyRow.id.in_(former)), ApiKeyRow.revoked_at.is_(None)
    )


def owned(owner: str | None, key_id: str) -> Select[ApiKeyRow]:
    """The key, if it is the owner's; of any owner where none is named."""
    statement = select(ApiKeyRow).where(ApiKeyRow.id == key_id)
    return statement if owner is None else statement.where(ApiKeyRow.owner == owner)


def listed(owner: str, *, cursor: str | None) -> Select[ApiKeyRow]:
    """The owner's keys, newest first. Raises InvalidCursorError."""
    statement = select(ApiKeyRow).where(ApiKeyRow.owner == owner)
    if cursor is not None:
        statement = statement.where(after_cursor(ApiKeyRow.created_at, ApiKeyRow.id, cursor))
    return statement.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id.desc())


def touch(key_id: str) -> Update:
    """Note that the key was used just now, unless somebody did within the last minute."""
    return update(ApiKeyRow).where(ApiKeyRow.id == key_id, _is_untouched()).values(last_used_at=now())


def _is_untouched() -> ColumnElement[bool]:
    """Whether the last use was noted more than a minute ago: not every request is worth a write."""
    return or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < now(-_SECONDS_BETWEEN_TOUCHES))


def revoke(key_id: str) -> Update:
    """End the key; the first time counts."""
    return update(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None)).values(revoked_at=now())


def rotatable(key_id: str) -> Select[ApiKeyRow]:
    """The key, locked, if it has neither been revoked nor expired."""
    return select(ApiKeyRow).where(
        ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None),
        or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now()),
    ).with_for_update()


def end_former(key_id: str) -> Update:
    """No secret before the present one is valid any longer."""
    return update(FormerSecretRow).where(
        FormerSecretRow.key_id == key_id, FormerSecretRow.valid_until > now()
    ).values(valid_until=now())


def former(secret_sha256: str) -> Select[str]:
    """The id of the key that once had this secret."""
    return select(FormerSecretRow.key_id).where(FormerSecretRow.secret_sha256 == secret_sha256)


def any_valid() -> Select[str]:
    """Id of some key that was not revoked and has not expired."""
    return select(ApiKeyRow.id).where(
        ApiKeyRow.revoked_at.is_(None), or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now())
    ).limit(1)
