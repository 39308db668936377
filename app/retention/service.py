"""The chores of retention. Each is a short transaction of bounded size, and does nothing twice.

Every worker's reaper calls `run` in each round; a stamp in the database lets one of them do the chores at a time, and
no sooner than they are due. What is more than one round can take is left for the next.
"""

from collections.abc import Iterator, Sequence
from math import ceil

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.artifacts.service import discard
from app.jobs.models import JobRow
from app.kit.clock import now
from app.kit.database import Database, insert_into
from app.retention import queries
from app.retention.models import ChoreRow
from app.settings import Settings
from app.uploads import service as uploads

# Points kept of each metric, about.
MAX_POINTS = 1000
_LIMIT = 100
# Rows of a log or of a metric that one transaction deletes.
_ROWS = 500
_TURNS = 20
_DAY = 24 * 3600.0
_STAMP = "retention"


def run(db: Database, settings: Settings) -> dict[str, int]:
    """Do the chores, if they are due and nobody is at them; how many of what were dropped or thinned."""
    if not _take_turn(db, settings.retention_seconds):
        return {}
    done = {
        "uploads": uploads.expire(db, _LIMIT),
        "stray artifacts": drop_strays(db),
        "artifacts": drop_unused(db, settings.artifact_days * _DAY) if settings.artifact_days else 0,
        "jobs' histories": thin_histories(db, settings.history_days * _DAY) if settings.history_days else 0,
    }
    if any(num >= limit for num, limit in zip(done.values(), (_LIMIT, _LIMIT, _LIMIT, _TURNS), strict=True)):
        _leave_turn(db)
    return {what: num for what, num in done.items() if num}


def drop_unused(db: Database, seconds: float) -> int:
    """Drop artifacts that nobody used for so long and no job needs that has not ended; returns how many."""
    with db.writing() as session:
        found = session.scalars(queries.unused_artifacts(seconds, _LIMIT)).all()
        # Asked again now that they are locked: a job may have been submitted meanwhile.
        dropped = session.scalars(queries.still_unused(found, seconds)).all() if found else []
        discard(session, dropped)
    return len(dropped)


def drop_strays(db: Database) -> int:
    """Drop what ended jobs made and nothing holds; returns how many."""
    with db.writing() as session:
        found = session.scalars(queries.stray_artifacts(_LIMIT)).all()
        discard(session, found)
    return len(found)


def thin_histories(db: Database, seconds: float) -> int:
    """Take progress out of the logs of jobs that ended so long ago, and thin their metrics.

    Returns how many transactions that took; `_TURNS` when there is more to do.
    """
    for turn in range(_TURNS):
        with db.writing() as session:
            job_id = session.scalars(queries.next_to_thin(seconds)).one_or_none()
            if job_id is None:
                return turn
            if not _forget_events(session, job_id) and not _thin_a_metric(session, job_id):
                session.execute(update(JobRow).where(JobRow.id == job_id).values(thinned_at=now()))
    return _TURNS


def kept_steps(points: Sequence[tuple[int, float | None]], max_points: int) -> set[int]:
    """Steps of about so many points that draw the same curve: first, last, and the extremes of equal stretches.

    Of the values that were not finite, the first of each stretch is kept too.
    """
    stretch = ceil(len(points) / max(1, max_points // 2))
    kept = {points[0][0], points[-1][0]}
    for begin in range(0, len(points), stretch):
        part = points[begin:begin + stretch]
        finite = [(value, step) for step, value in part if value is not None]
        if finite:
            kept |= {min(finite)[1], max(finite)[1]}
        kept |= set([step for step, value in part if value is None][:1])
    return kept


def _forget_events(session: Session, job_id: str) -> bool:
    seqs = session.scalars(queries.passing_events(job_id, _ROWS)).all()
    if seqs:
        session.execute(queries.forget_events(job_id, seqs))
    return bool(seqs)


def _thin_a_metric(session: Session, job_id: str) -> bool:
    """Thin one metric that has too many points, if there is one."""
    # Half as many more as are aimed at: what was thinned is never thinned again.
    found = session.execute(queries.long_series(job_id, MAX_POINTS + MAX_POINTS // 2 + 2)).one_or_none()
    if found is None:
        return False
    phase, name = found
    points = [(step, value) for step, value in session.execute(queries.series(job_id, phase, name))]
    kept = kept_steps(points, MAX_POINTS)
    for steps in _slices([step for step, _ in points if step not in kept]):
        session.execute(queries.forget_points(job_id, phase, name, steps))
    return True


def _slices(steps: Sequence[int]) -> Iterator[Sequence[int]]:
    yield from (steps[begin:begin + _ROWS] for begin in range(0, len(steps), _ROWS))


def _take_turn(db: Database, seconds: float) -> bool:
    with db.writing() as session:
        session.execute(insert_into(session, ChoreRow).values(name=_STAMP).on_conflict_do_nothing())
        taken = session.scalars(
            update(ChoreRow)
            .where(ChoreRow.name == _STAMP, ChoreRow.due_at <= now())
            .values(due_at=now(seconds))
            .returning(ChoreRow.name)
        ).one_or_none()
    return taken is not None


def _leave_turn(db: Database) -> None:
    with db.writing() as session:
        session.execute(update(ChoreRow).where(ChoreRow.name == _STAMP).values(due_at=now()))
