"""Shards of soft labels are lent, taken on, kept, told of and evicted. All in the caller's transaction.

A shard is made by one job at a time: who takes it on says so in its row, and others pass it over for as long as that
attempt holds its lease. A lent shard is an input of the job, and like every input it stays until the job has ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.artifacts.models import ArtifactRow
from app.artifacts.service import discard
from app.jobs.models import JobInputRow, JobRow
from app.kit.clock import now
from app.kit.database import insert_into
from app.soft_labels import queries
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.events import SoftLabelsSaved

_EVICT_LIMIT = 100


@dataclass(frozen=True)
class Lending:
    """What a job is lent, what it is to make, and which jobs make the rest."""

    ready: dict[str, ArtifactRow] = field(default_factory=dict)
    to_make: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    seconds_saved: float = 0.0


def lend(session: Session, job: JobRow, keys: Sequence[str], num_to_make: int) -> Lending:
    """Lend the job what is there of these shards; of the others it takes on as many as it asks for, in their order."""
    ready = dict(session.execute(queries.ready(job.owner, keys)).all())
    seconds_saved = _count_uses(session, job, ready)
    missing = [key for key in keys if key not in ready]
    if not missing:
        return Lending(ready, seconds_saved=seconds_saved)
    to_make = _take_on(session, job, missing, num_to_make)
    makers = session.scalars(queries.makers(job.owner, missing, but=job.id)).all()
    return Lending(ready, to_make, list(makers), seconds_saved)


def keep(session: Session, job: JobRow, event: SoftLabelsSaved, artifact_id: str) -> None:
    """Have the artifact be the shard from now on; where another job was faster, it is dropped."""
    statement = insert_into(session, SoftLabelsRow).values(
        owner=job.owner, key=event.key, artifact_id=artifact_id, maker_job_id=job.id, maker_attempt=job.attempt,
        seconds=event.seconds, num_uses=0, last_used_at=now(),
    )
    made = {
        name: statement.excluded[name]
        for name in ("artifact_id", "maker_job_id", "maker_attempt", "seconds", "last_used_at")
    }
    kept = session.scalars(statement.on_conflict_do_update(
        index_elements=[SoftLabelsRow.owner, SoftLabelsRow.key], set_=made,
        where=SoftLabelsRow.artifact_id.is_(None),
    ).returning(SoftLabelsRow.key)).one_or_none()
    if kept is None:
        discard(session, [artifact_id])
    else:
        _hold(session, job.id, [artifact_id])


def facts(event: SoftLabelsSaved) -> dict[str, Any]:
    """What the artifact of a shard tells for good."""
    return event.model_dump(mode="json", include={"key", "split", "view", "shard", "num_rows", "seconds"})


def usage(session: Session, artifacts: Iterable[ArtifactRow]) -> dict[str, dict[str, Any]]:
    """What there is to tell of the artifacts that are shards, by id: how often they were used, and what that saved."""
    found = session.scalars(queries.of_artifacts([row.id for row in artifacts if row.kind == "soft_labels"])).all()
    return {
        row.artifact_id: {
            "num_uses": row.num_uses, "seconds_saved": row.num_uses * row.seconds,
            "last_used_at": row.last_used_at.isoformat(),
        }
        for row in found if row.artifact_id is not None
    }


def evict(session: Session, *, unused_seconds: float, max_bytes: int) -> int:
    """Drop shards that nobody uses: those not used for so long, then an owner's least recently used above a size.

    Returns how many; no more than some at once. Their bytes become loose.
    """
    for row in session.scalars(queries.never_made(_EVICT_LIMIT)):
        session.delete(row)
    chosen = list(session.scalars(queries.unused_since(unused_seconds, _EVICT_LIMIT)))
    for owner, size in session.execute(queries.sizes_above(max_bytes)).all():
        chosen += _excess(session, owner, size - max_bytes, set(chosen))
    # Asked again now that they are locked: a job may have been lent one meanwhile.
    dropped = session.scalars(queries.idle(chosen)).all() if chosen else []
    discard(session, dropped)
    return len(dropped)


def drop(session: Session, owner: str, keys: Sequence[str]) -> None:
    """Forget shards whose bytes the store has lost, whoever uses them."""
    discard(session, session.scalars(queries.holding(owner, keys)).all())


def _excess(session: Session, owner: str, excess: int, chosen: set[str]) -> list[str]:
    found = []
    for artifact_id, size in session.execute(queries.least_recently_used(owner, _EVICT_LIMIT)).all():
        if excess <= 0:
            break
        excess -= size
        if artifact_id not in chosen:
            found.append(artifact_id)
    return found


def _count_uses(session: Session, job: JobRow, ready: dict[str, ArtifactRow]) -> float:
    """Make the shards inputs of the job; the seconds that they took to make."""
    if not ready:
        return 0.0
    rows = session.scalars(queries.several_for_change(job.owner, list(ready))).all()
    # Not what it made: that it holds since.
    new = _hold(session, job.id, [artifact.id for artifact in ready.values()])
    session.execute(
        update(SoftLabelsRow)
        .where(SoftLabelsRow.owner == job.owner, SoftLabelsRow.key.in_(list(ready)))
        .values(last_used_at=now())
    )
    session.execute(
        update(SoftLabelsRow)
        .where(SoftLabelsRow.owner == job.owner, SoftLabelsRow.artifact_id.in_(new))
        .values(num_uses=SoftLabelsRow.num_uses + 1)
    )
    return sum(row.seconds for row in rows)


def _hold(session: Session, job_id: str, artifact_ids: Sequence[str]) -> Sequence[str]:
    """Make artifacts inputs of a job; those that were none yet."""
    statement = insert_into(session, JobInputRow).values(
        [{"job_id": job_id, "artifact_id": artifact_id} for artifact_id in artifact_ids]
    )
    return session.scalars(statement.on_conflict_do_nothing().returning(JobInputRow.artifact_id)).all()


def _take_on(session: Session, job: JobRow, keys: Sequence[str], limit: int) -> list[str]:
    """Of missing shards, those that this attempt is to make: what it has taken on already, and some more."""
    taken = set(session.scalars(queries.taken_on(job.owner, keys, job_id=job.id, attempt=job.attempt)))
    if len(taken) < limit:
        taken |= _take_abandoned(session, job, keys, limit - len(taken))
    if len(taken) < limit:
        taken |= _take_new(session, job, [key for key in keys if key not in taken], limit - len(taken))
    return [key for key in keys if key in taken]


def _take_abandoned(session: Session, job: JobRow, keys: Sequence[str], limit: int) -> set[str]:
    found = session.scalars(queries.abandoned(job.owner, keys, limit)).all()
    for row in found:
        row.maker_job_id, row.maker_attempt = job.id, job.attempt
    session.flush()
    return {row.key for row in found}


def _take_new(session: Session, job: JobRow, keys: Sequence[str], limit: int) -> set[str]:
    known = {row.key for row in session.scalars(queries.several(job.owner, keys))}
    new = sorted([key for key in keys if key not in known][:limit])
    if not new:
        return set()
    statement = insert_into(session, SoftLabelsRow).values([
        {"owner": job.owner, "key": key, "maker_job_id": job.id, "maker_attempt": job.attempt} for key in new
    ])
    return set(session.scalars(statement.on_conflict_do_nothing().returning(SoftLabelsRow.key)))
