"""API keys: made, recognised, rotated, revoked. A secret leaves once and is stored as its digest only."""

import hashlib
import logging
import secrets
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.keys import queries
from app.keys.models import ApiKeyRow, FormerSecretRow
from app.kit.clock import now
from app.kit.database import Database, insert_into
from app.kit.ids import new_id
from app.kit.paging import Slice, cut
from stillhouse.contract.failures import KeyEndedError, NotFoundError, StorageFullError, UnauthenticatedError
from stillhouse.contract.resources import SCOPES, USUAL_SCOPES, Scope

BOOTSTRAP_OWNER = "default"
_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
_PREFIX_LENGTH = 8

log = logging.getLogger(__name__)


def create(
    session: Session, *, owner: str, name: str, scopes: Collection[Scope] = USUAL_SCOPES,
    expires_at: datetime | None = None, limits: Mapping[str, Any] | None = None,
) -> tuple[ApiKeyRow, str]:
    """A new key and its secret, which cannot be had again."""
    secret = _new_secret()
    columns = _columns(secret, owner=owner, name=name, scopes=scopes)
    row = session.scalars(
        insert(ApiKeyRow).values(**columns, expires_at=expires_at, limits=limits or None).returning(ApiKeyRow)
    ).one()
    return row, secret


def ensure_bootstrap(session: Session, secret: str) -> None:
    """Let this secret be an administrator's key from now on, unless it was revoked or replaced."""
    columns = _columns(secret, owner=BOOTSTRAP_OWNER, name="bootstrap", scopes=SCOPES)
    if session.scalars(queries.former(_digest(secret))).one_or_none() is not None:
        return
    session.execute(
        insert_into(session, ApiKeyRow).values(**columns).on_conflict_do_nothing(
            index_elements=[ApiKeyRow.secret_sha256]
        )
    )


@dataclass(frozen=True)
class KnownKey:
    """What a request needs to know of its key."""

    id: str
    owner: str
    scopes: str
    limits: dict[str, Any] | None


def authenticate(db: Database, secret: str) -> KnownKey:
    """The key that this secret belongs to. Raises UnauthenticatedError."""
    digest = _digest(secret)
    with db.reading() as session:
        # Looked up by digest, which nobody can steer: how long that takes tells nothing about the secret.
        found = session.connection().execute(queries.known(), {"sha256": digest}).one_or_none()
    if found is None:
        raise UnauthenticatedError
    *key, has_expired, is_noted = found
    if has_expired:
        raise UnauthenticatedError("The API key has expired; ask for a new one.")
    known = KnownKey(*key)
    if not is_noted:
        _note_use(db, known.id)
    return known


def _note_use(db: Database, key_id: str) -> None:
    try:
        with db.writing() as session:
            session.execute(queries.touch(key_id))
    except (OperationalError, StorageFullError) as error:
        # Whoever only reads must not fail because nothing can be written.
        log.warning("the use of %s was not noted: %s", key_id, error)


def rotate(
    session: Session, owner: str | None, key_id: str, *, overlap_seconds: float
) -> tuple[ApiKeyRow, str, datetime]:
    """A new secret for the key; the one before stays valid for so long, any older one ends now.

    Returns the key, the secret, and when the old one ends. Raises NotFoundError, KeyEndedError.
    """
    if session.scalars(queries.owned(owner, key_id)).one_or_none() is None:
        raise NotFoundError
    row = session.scalars(queries.rotatable(key_id), execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise KeyEndedError
    secret = _new_secret()
    session.execute(queries.end_former(key_id))
    ends_at = session.scalars(
        insert(FormerSecretRow)
        .values(secret_sha256=row.secret_sha256, key_id=key_id, valid_until=now(overlap_seconds))
        .returning(FormerSecretRow.valid_until)
    ).one()
    row.secret_sha256, row.prefix = _digest(secret), secret[:_PREFIX_LENGTH]
    session.flush()
    return row, secret, ends_at


def held(session: Session, owner: str, key_id: str) -> ApiKeyRow:
    """The owner's key. Raises NotFoundError."""
    row = session.scalars(queries.owned(owner, key_id)).one_or_none()
    if row is None:
        raise NotFoundError
    return row


def page(session: Session, owner: str, *, cursor: str | None = None, limit: int = 50) -> Slice[ApiKeyRow]:
    """A page of the owner's keys, revoked ones too, newest first. Raises InvalidCursorError."""
    return cut(session.scalars(queries.listed(owner, cursor=cursor).limit(limit + 1)).all(), limit)


def revoke(session: Session, owner: str | None, key_id: str) -> None:
    """End the owner's key (anybody's, where no owner is named); once more changes nothing. Raises NotFoundError."""
    if session.scalars(queries.owned(owner, key_id)).one_or_none() is None:
        raise NotFoundError
    session.execute(queries.revoke(key_id))


def _columns(secret: str, *, owner: str, name: str, scopes: Collection[Scope]) -> dict[str, object]:
    return {
        "id": new_id("key"), "owner": owner, "name": name, "prefix": secret[:_PREFIX_LENGTH],
        "secret_sha256": _digest(secret), "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
    }


def _new_secret() -> str:
    return "sk_" + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
