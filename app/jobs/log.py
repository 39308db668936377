"""The job's log, and the one way to change its status. Nothing else writes either."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.artifacts.service import discard_leftovers
from app.jobs.models import JobAttemptRow, JobEventRow, JobRow
from app.kit.clock import now
from app.kit.database import table
from app.webhooks import outbox
from stillhouse.contract.events import Event, StatusChanged
from stillhouse.contract.status import LEASED, TERMINAL, Status, sources

MAX_REASON = 1024
_RELEASED = {"lease_worker": None, "lease_until": None, "phase": None, "samples_per_second": None, "eta_seconds": None}


class IllegalTransitionError(Exception):
    """The state graph has no such edge. A mistake of ours: services ask the graph before they change anything."""


def append(session: Session, row: JobRow, at: datetime, events: Sequence[Event]) -> None:
    """Write the last events of the log; `row.last_seq` counts them already, which is what keeps others out."""
    if not events:
        return
    first = row.last_seq - len(events) + 1
    session.connection().execute(insert(table(JobEventRow)), [
        {
            "job_id": row.id, "seq": seq, "attempt": row.attempt, "at": at, "type": event.type,
            "body": json.loads(event.model_dump_json()),
        }
        for seq, event in enumerate(events, first)
    ])


def change_status(
    session: Session, row: JobRow, following: Status, reason: str, *,
    values: Mapping[str, object] | None = None, last_words: Sequence[Event] = (), outcome: str | None = None,
) -> JobRow:
    """Move a job along an edge of the graph, with all that follows from it. Raises IllegalTransitionError.

    `values` are further columns, `last_words` events that go before the change, `outcome` how the attempt ended.
    """
    events = [*last_words, StatusChanged(status=following, reason=reason[:MAX_REASON])]
    changed = session.scalars(
        update(JobRow)
        .where(JobRow.id == row.id, JobRow.status.in_(sources(following)))
        .values({
            **_consequences(following), **(values or {}),
            "status": following, "last_seq": JobRow.last_seq + len(events), "last_event_at": now(),
        })
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if changed is None or changed.last_event_at is None:
        raise IllegalTransitionError(f"{row.id}: {row.status} to {following}")
    append(session, changed, changed.last_event_at, events)
    if following not in LEASED:
        _end_attempt(session, changed, outcome or following, reason)
    if following in TERMINAL:
        discard_leftovers(session, changed.id)
    outbox.announce(session, changed, changed.last_event_at)
    return changed


def tell(session: Session, row: JobRow, events: Sequence[Event], values: Mapping[str, object]) -> JobRow:
    """Change columns of a job that stays in its status, and write the events that say so. The row must be locked."""
    changed = session.scalars(
        update(JobRow)
        .where(JobRow.id == row.id)
        .values({**values, "last_seq": JobRow.last_seq + len(events), "last_event_at": now()})
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one()
    assert changed.last_event_at is not None  # noqa: S101 - it was just set
    append(session, changed, changed.last_event_at, events)
    return changed


def _consequences(following: Status) -> dict[str, object]:
    columns: dict[str, object] = {} if following in LEASED else dict(_RELEASED)
    if following is Status.QUEUED:
        columns |= {"queued_at": now(), "rung_at": None}
    if following in TERMINAL:
        columns |= {"finished_at": now(), "checkpoint_artifact_id": None}
    if following is Status.SUCCEEDED:
        columns["percent"] = 100.0
    return columns


def _end_attempt(session: Session, row: JobRow, outcome: str, reason: str) -> None:
    session.execute(
        update(JobAttemptRow)
        .where(
            JobAttemptRow.job_id == row.id, JobAttemptRow.attempt == row.attempt, JobAttemptRow.ended_at.is_(None),
        )
        .values(ended_at=now(), outcome=outcome, reason=reason[:MAX_REASON])
    )
