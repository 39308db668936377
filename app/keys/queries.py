"""Statements about API keys."""

from sqlalchemy import Select, Update, or_, select, update

from app.keys.models import ApiKeyRow
from app.kit.clock import now
from app.kit.paging import after_cursor

_SECONDS_BETWEEN_TOUCHES = 60


def valid(secret_sha256: str) -> Select[ApiKeyRow]:
    """The key with this secret, unless it was revoked."""
    return select(ApiKeyRow).where(ApiKeyRow.secret_sha256 == secret_sha256, ApiKeyRow.revoked_at.is_(None))


def owned(owner: str, key_id: str) -> Select[ApiKeyRow]:
    """The key, if it is the owner's."""
    return select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.owner == owner)


def listed(owner: str, *, cursor: str | None) -> Select[ApiKeyRow]:
    """The owner's keys, newest first. Raises InvalidCursorError."""
    statement = select(ApiKeyRow).where(ApiKeyRow.owner == owner)
    if cursor is not None:
        statement = statement.where(after_cursor(ApiKeyRow.created_at, ApiKeyRow.id, cursor))
    return statement.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id.desc())


def untouched(key_id: str) -> Select[str]:
    """The key's id if its last use was noted more than a minute ago: not every request is worth a write."""
    return select(ApiKeyRow.id).where(
        ApiKeyRow.id == key_id,
        or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < now(-_SECONDS_BETWEEN_TOUCHES)),
    )


def touch(key_id: str) -> Update:
    """Note that the key was used just now."""
    return update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(last_used_at=now())


def revoke(key_id: str) -> Update:
    """End the key; the first time counts."""
    return update(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None)).values(revoked_at=now())


def any_valid() -> Select[str]:
    """Id of some key that was not revoked."""
    return select(ApiKeyRow.id).where(ApiKeyRow.revoked_at.is_(None)).limit(1)
