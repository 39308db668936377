"""/jobs/{id}/...: what a user asks of a job that is there."""

from fastapi import APIRouter

from app.http.access import CallerOf
from app.http.parts import PartsOf
from app.http.problems import declared
from app.jobs import service
from app.jobs.reading import full_resource
from app.queue import ring
from stillhouse.contract.failures import IllegalActionError, NotFoundError, UnauthenticatedError
from stillhouse.contract.resources import Job
from stillhouse.contract.status import Status

router = APIRouter(tags=["jobs"])

_FAILURES = declared(UnauthenticatedError, NotFoundError, IllegalActionError)


@router.post("/jobs/{job_id}/cancel", status_code=202, responses=_FAILURES)
def cancel(caller: CallerOf, parts: PartsOf, job_id: str) -> Job:
    """Cancel a job: at once while it waits; as soon as its worker has heard while it runs. Twice is no error."""
    with parts.db.writing() as session:
        job = full_resource(parts, session, service.cancel(session, caller.owner, job_id))
    parts.announcer.announce(job_id)
    return job


@router.post("/jobs/{job_id}/pause", status_code=202, responses=_FAILURES)
def pause(caller: CallerOf, parts: PartsOf, job_id: str) -> Job:
    """Pause a job: at once while it waits; with a checkpoint, giving its slot back, while it runs."""
    with parts.db.writing() as session:
        job = full_resource(parts, session, service.pause(session, caller.owner, job_id))
    parts.announcer.announce(job_id)
    return job


@router.post("/jobs/{job_id}/resume", status_code=202, responses=_FAILURES)
def resume(caller: CallerOf, parts: PartsOf, job_id: str) -> Job:
    """Queue a paused job again. It goes on from its checkpoint, as if it had never stopped. Twice is no error."""
    with parts.db.writing() as session:
        row = service.resume(session, caller.owner, job_id)
        job = full_resource(parts, session, row)
    if row.status is Status.QUEUED:
        ring(parts.settings.broker_url, row.queue, job_id)
    parts.announcer.announce(job_id)
    return job
