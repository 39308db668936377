"""Keyset pages: newest first, stable while rows come and go."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.orm import Mapped

from stillhouse.contract.failures import InvalidCursorError

_ID = re.compile(r"[0-9a-z_-]{1,64}")


class Paged(Protocol):
    """A row that lists can be made of."""

    @property
    def id(self) -> str:
        """Tells rows of one moment apart."""

    @property
    def created_at(self) -> datetime:
        """What lists are ordered by."""


RowType = TypeVar("RowType")
PagedType = TypeVar("PagedType", bound=Paged)


@dataclass(frozen=True)
class Slice(Generic[RowType]):
    """A page of rows, and the cursor of the next page, if there is one."""

    rows: Sequence[RowType]
    next_cursor: str | None


def after_cursor(created_at: Mapped[datetime], row_id: Mapped[str], cursor: str) -> ColumnElement[bool]:
    """The rows that come after the cursor, newest first. Raises InvalidCursorError."""
    return tuple_(created_at, row_id) < tuple_(*_decode(cursor))


def cut(rows: Sequence[PagedType], limit: int) -> Slice[PagedType]:
    """A page of `limit` rows out of a query that asked for one more."""
    if len(rows) <= limit:
        return Slice(rows, None)
    last = rows[limit - 1]
    return Slice(rows[:limit], _encode(last.created_at, last.id))


def _encode(at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), row_id]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, row_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        return _aware(datetime.fromisoformat(at)), _id(row_id)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCursorError from error


def _id(row_id: str) -> str:
    # What no database takes must not reach one.
    if not _ID.fullmatch(row_id):
        raise ValueError("a cursor's id is one of ours")
    return row_id


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a cursor's time has a zone")
    return at
