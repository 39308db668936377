"""One job as it stands, read whole."""

from sqlalchemy.orm import Session

from app.http.parts import Parts
from app.jobs import service
from app.jobs.models import JobRow
from app.jobs.schemas import applied_recipe, job_resource
from stillhouse.contract.resources import Job


def full_resource(parts: Parts, session: Session, row: JobRow) -> Job:
    """The job with its files, its place in the queue and its recipe."""
    return job_resource(
        row, stalled_seconds=parts.settings.stalled_seconds, files=service.files(session, row.id),
        place=service.queue_place(session, row), recipe=applied_recipe(row),
    )
