"""Refuse what goes beyond an owner's quota. Every function works in the caller's transaction, and counts exactly.

SQLite has one writer at a time. On PostgreSQL those who count the same for the same owner take turns, each up to its
commit; others are not held up. A limit of None is no limit, and costs nothing.
"""

from sqlalchemy.orm import Session

from app.jobs.models import JobRow
from app.quotas import queries
from app.quotas.queries import Counted
from app.settings import Settings
from app.uploads.queries import pending_bytes
from stillhouse.contract.failures import StorageQuotaExceededError, TooManyQueuedJobsError
from stillhouse.contract.resources import KeyLimits, Used
from stillhouse.contract.status import Kind


def limit(own: int | None, usual: int) -> int | None:
    """The limit that holds for a key: its own, else the service's; 0 means that there is none."""
    return (usual if own is None else own) or None


def in_force(own: KeyLimits, settings: Settings) -> KeyLimits:
    """The limits that hold for a key with these of its own; null where there is none."""
    return KeyLimits(**{name: limit(value, getattr(settings, f"max_{name}")) for name, value in own})


def used(session: Session, owner: str) -> Used:
    """What the owner uses of what is limited."""
    return Used(
        stored_bytes=_stored(session, owner), queued_jobs=session.scalars(queries.num_queued(owner, "job")).one(),
        running_jobs=session.scalars(queries.num_running(owner)).one(),
    )


def check_room(session: Session, owner: str, most: int | None, *, adding: int = 0) -> int | None:
    """How many bytes of `most` the owner has left without these; None where there is no limit.

    Raises StorageQuotaExceededError where the owner's bytes, with these, are more than `most`.
    """
    if most is None:
        return None
    stored = _stored(session, owner)
    if stored + adding > most:
        raise StorageQuotaExceededError(
            f"You have {stored} of {most} bytes stored" + (f", and this is {adding} more" if adding else "")
            + ". Delete artifacts that you no longer need, or ask the operator for more room."
        )
    return most - stored


def hold_room(session: Session, owner: str) -> None:
    """Let nobody else store bytes of the owner under a quota until the commit; `check_room` is exact from now on."""
    _take_turn(session, "stored", owner)


def hold_place(session: Session, owner: str, most: int | None, kind: Kind = "job") -> None:
    """Make sure that one more job (or plan) may be queued until the commit. Raises TooManyQueuedJobsError."""
    if most is None:
        return
    _take_turn(session, "queued", owner)
    queued = session.scalars(queries.num_queued(owner, kind)).one()
    if queued >= most:
        raise TooManyQueuedJobsError(
            f"You have {queued} {kind}s queued, and {most} may wait at a time. Wait until some have begun, cancel "
            "some, or ask the operator for a higher limit."
        )


def may_run(session: Session, job: JobRow, usual: int) -> bool:
    """Whether the owner may have one more job running, as long as this transaction lasts."""
    most = limit(job.max_running, usual)
    if most is None or job.kind == "plan":
        return True
    _take_turn(session, "running", job.owner)
    return session.scalars(queries.num_running(job.owner)).one() < most


def _stored(session: Session, owner: str) -> int:
    # What a resumable upload comes to is taken when it begins.
    return session.scalars(queries.stored_bytes(owner)).one() + session.scalars(pending_bytes(owner)).one()


def _take_turn(session: Session, counted: Counted, owner: str) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(queries.turn(counted, owner))
