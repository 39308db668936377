"""A create that is sent twice happens once: claim the key, do the work, keep the answer."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session

from app.idempotency.models import IdempotencyKeyRow
from app.kit.clock import now
from app.kit.database import Database, insert_into
from stillhouse.contract.failures import IdempotencyInFlightError, IdempotencyMismatchError

# A request that was not answered in this time died with its process.
_IN_FLIGHT_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What the first request was answered."""

    status_code: int
    response: dict[str, Any]


def begin(
    db: Database, *, owner: str, key: str, request: str, body_sha256: str, hours: float,
) -> Answer | None:
    """The answer of an earlier request with this key; None when this is the first, which is in flight from now on.

    `request` is method and path, `hours` how long a key is remembered. Raises IdempotencyMismatchError when the
    earlier request was another one, IdempotencyInFlightError when it is not answered yet.
    """
    with db.writing() as session:
        session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.created_at < now(-3600 * hours)))
        session.execute(delete(IdempotencyKeyRow).where(
            _is(owner, key), IdempotencyKeyRow.status_code.is_(None),
            IdempotencyKeyRow.created_at < now(-_IN_FLIGHT_SECONDS),
        ))
        is_first = session.scalars(
            insert_into(session, IdempotencyKeyRow)
            .values(owner=owner, key=key, request=request, body_sha256=body_sha256)
            .on_conflict_do_nothing(index_elements=[IdempotencyKeyRow.owner, IdempotencyKeyRow.key])
            .returning(IdempotencyKeyRow.key)
        ).one_or_none()
        if is_first is not None:
            return None
        earlier = session.scalars(select(IdempotencyKeyRow).where(_is(owner, key))).one_or_none()
    if earlier is None:
        raise IdempotencyInFlightError
    if (earlier.request, earlier.body_sha256) != (request, body_sha256):
        raise IdempotencyMismatchError
    if earlier.status_code is None or earlier.response is None:
        raise IdempotencyInFlightError
    return Answer(earlier.status_code, earlier.response)


def finish(session: Session, *, owner: str, key: str, status_code: int, response: dict[str, Any]) -> None:
    """Keep the answer, in the transaction that did the work."""
    session.execute(
        update(IdempotencyKeyRow).where(_is(owner, key)).values(status_code=status_code, response=response)
    )


def abandon(db: Database, *, owner: str, key: str) -> None:
    """Forget a request that failed, so that it can be sent again."""
    with db.writing() as session:
        session.execute(
            delete(IdempotencyKeyRow).where(_is(owner, key), IdempotencyKeyRow.status_code.is_(None))
        )


def _is(owner: str, key: str) -> ColumnElement[bool]:
    return and_(IdempotencyKeyRow.owner == owner, IdempotencyKeyRow.key == key)
