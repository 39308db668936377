"""One job as it stands, read whole; and waiting until it stands otherwise."""

import hashlib
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.orm import Session

from app.http.downloads import names_etag
from app.http.parts import Parts
from app.jobs import service
from app.jobs.models import JobRow
from app.jobs.schemas import applied_recipe, job_resource
from stillhouse.contract.resources import Job
from stillhouse.contract.status import TERMINAL

# Whoever waits for a change looks that often even where the job's own log is silent: its place in the queue changes
# with other jobs, and it stalls by doing nothing.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Standing:
    """A job at one moment, as it is sent."""

    content: bytes
    etag: str
    seq: int
    is_final: bool


def full_resource(parts: Parts, session: Session, row: JobRow) -> Job:
    """The job with its files, its place in the queue and its recipe."""
    return job_resource(
        row, stalled_seconds=parts.settings.stalled_seconds,
        files=service.files(session, row.id) if row.status in TERMINAL else None,  # they come with its end
        place=service.queue_place(session, row, parts.settings.max_running_jobs),
        recipe=applied_recipe(row),
    )


def standing(parts: Parts, owner: str, job_id: str) -> Standing:
    """The owner's job as it stands now. Raises NotFoundError.

    The validator changes with every event and with everything that is told, so also with what no event tells.
    """
    with parts.db.reading() as session:
        row = service.find(session, owner, job_id)
        job = full_resource(parts, session, row)
    content = job.model_dump_json().encode()
    digest = hashlib.sha256(b"%d %b" % (row.last_seq, content)).hexdigest()
    return Standing(content, f'"{digest[:32]}"', row.last_seq, job.terminal)


async def standing_otherwise(parts: Parts, owner: str, job_id: str, *, known: str, seconds: float) -> Standing:
    """The job once it differs from what the client knows (from now on, where it names nothing), or after a while.

    `known` is an If-None-Match. No thread and no database session is held while waiting. Raises NotFoundError.
    """
    deadline = monotonic() + seconds
    found = await parts.turns.read(standing, parts, owner, job_id)
    known = known or found.etag
    while names_etag(known, found.etag) and not found.is_final and not parts.watching.is_closing:
        left = deadline - monotonic()
        if left <= 0:
            break
        await parts.watching.wait_for_news(job_id, found.seq, min(left, LOOK_SECONDS))
        found = await parts.turns.read(standing, parts, owner, job_id)
    return found
