"""API keys: made, recognised, revoked. The secret leaves once and is stored as its digest only."""

import hashlib
import secrets
import string

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.keys import queries
from app.keys.models import ApiKeyRow
from app.kit.database import Database, insert_into
from app.kit.ids import new_id
from app.kit.paging import Slice, cut
from stillhouse.contract.failures import NotFoundError, UnauthenticatedError

BOOTSTRAP_OWNER = "default"
_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
_PREFIX_LENGTH = 8


def create(session: Session, *, owner: str, name: str, is_admin: bool = False) -> tuple[ApiKeyRow, str]:
    """A new key and its secret, which cannot be had again."""
    secret = "sk_" + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    row = session.scalars(
        insert(ApiKeyRow).values(**_columns(secret, owner=owner, name=name, is_admin=is_admin)).returning(ApiKeyRow)
    ).one()
    return row, secret


def ensure_bootstrap(session: Session, secret: str) -> None:
    """Let this secret be an administrator's key from now on, unless it was revoked."""
    columns = _columns(secret, owner=BOOTSTRAP_OWNER, name="bootstrap", is_admin=True)
    session.execute(
        insert_into(session, ApiKeyRow).values(**columns).on_conflict_do_nothing(
            index_elements=[ApiKeyRow.secret_sha256]
        )
    )


def authenticate(db: Database, secret: str) -> ApiKeyRow:
    """The key that this secret belongs to. Raises UnauthenticatedError."""
    with db.reading() as session:
        # Looked up by digest: how long that takes tells nothing about the secret.
        row = session.scalars(queries.valid(_digest(secret))).one_or_none()
        if row is None:
            raise UnauthenticatedError
        is_noted = session.scalars(queries.untouched(row.id)).one_or_none() is None
    if not is_noted:
        with db.writing() as session:
            session.execute(queries.touch(row.id))
    return row


def page(session: Session, owner: str, *, cursor: str | None = None, limit: int = 50) -> Slice[ApiKeyRow]:
    """A page of the owner's keys, revoked ones too, newest first. Raises InvalidCursorError."""
    return cut(session.scalars(queries.listed(owner, cursor=cursor).limit(limit + 1)).all(), limit)


def revoke(session: Session, owner: str, key_id: str) -> None:
    """End the owner's key; once more changes nothing. Raises NotFoundError."""
    if session.scalars(queries.owned(owner, key_id)).one_or_none() is None:
        raise NotFoundError
    session.execute(queries.revoke(key_id))


def _columns(secret: str, *, owner: str, name: str, is_admin: bool) -> dict[str, object]:
    return {
        "id": new_id("key"), "owner": owner, "name": name, "prefix": secret[:_PREFIX_LENGTH],
        "secret_sha256": _digest(secret), "is_admin": is_admin,
    }


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
