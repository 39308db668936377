"""/plans: preflight alone. Asked for, waited for, read, cancelled."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.http.access import Caller, ReaderOf, SubmitterOf
from app.http.parts import Parts, PartsOf
from app.http.preferences import wait_seconds
from app.http.problems import answer_failure, declared
from app.jobs import service
from app.jobs.models import JobRow
from app.jobs.schemas import attempt_log
from app.jobs.spec_reading import read_spec
from app.jobs.submission import SPEC_BODY, SPEC_FAILURES, SpecBodyOf, admit, hold_place
from app.plans.schemas import planning_resource
from app.queue import plans_of, queue_of
from stillhouse.contract.failures import (
    ArchiveTooLargeError,
    DeviceUnavailableError,
    DivergedError,
    IllegalActionError,
    ImageTooLargeError,
    IncompatibleLayersError,
    LabelOutOfRangeError,
    LayerNotReachedError,
    LibraryMissingError,
    MalformedArchiveError,
    MalformedCsvError,
    MalformedDatasetError,
    MalformedIdxError,
    MalformedImageError,
    MalformedNpzError,
    MalformedParquetError,
    MalformedPytorchError,
    MalformedSafetensorsError,
    MissingSoftLabelsError,
    MissingValuesError,
    MixedImageShapesError,
    NonFiniteInputsError,
    NonFiniteWeightsError,
    NotFoundError,
    OutOfDeviceMemoryError,
    OutOfMemoryError,
    SingleClassError,
    SplitTooSmallError,
    StagingFailedError,
    StillhouseError,
    TeacherFailedError,
    TrainerCrashedError,
    TrainerStalledError,
    UnauthenticatedError,
    UnbuildableModelError,
    UnderivableStudentError,
    UnknownLayerError,
    UnknownModelError,
    UnsafeArchiveError,
    UnusableLabelsError,
    UnusableSoftLabelsError,
    WeightsMismatchError,
    WorkerLostError,
)
from stillhouse.contract.resources import AttemptLog, Planning

router = APIRouter(tags=["plans"])

# How long the answer may be waited for, in seconds.
USUAL_WAIT = 10
MOST_WAIT = 60
# What the worker may find wrong, beside what every spec is checked for.
PREFLIGHT_FAILURES: Sequence[type[StillhouseError]] = (
    WeightsMismatchError, NonFiniteWeightsError, NonFiniteInputsError, SingleClassError, LabelOutOfRangeError,
    SplitTooSmallError, DeviceUnavailableError, MalformedSafetensorsError, MalformedIdxError, MalformedNpzError,
    UnknownModelError, UnbuildableModelError, LibraryMissingError, UnderivableStudentError, MalformedPytorchError,
    MissingValuesError, MalformedImageError, ImageTooLargeError, MixedImageShapesError, UnusableSoftLabelsError,
    MalformedParquetError, MalformedCsvError, MalformedArchiveError, UnsafeArchiveError, ArchiveTooLargeError,
    MalformedDatasetError, DivergedError, OutOfMemoryError, MissingSoftLabelsError, TeacherFailedError,
    OutOfDeviceMemoryError, UnusableLabelsError, UnknownLayerError,
    LayerNotReachedError, IncompatibleLayersError, StagingFailedError, TrainerCrashedError, TrainerStalledError,
    WorkerLostError,
)

PreferOf = Annotated[str, Header(
    description=f"`wait=N` waits up to N seconds for the plan (RFC 7240): {USUAL_WAIT} when left out, at most "
    f"{MOST_WAIT}.",
)]


@router.post(
    "/plans", openapi_extra=SPEC_BODY, response_model=Planning,
    responses={
        200: {"description": "The plan, made (or cancelled) while the client waited."},
        202: {"description": "The plan is still being made: Location tells where to read it.", "model": Planning},
        **declared(*SPEC_FAILURES, *PREFLIGHT_FAILURES),
    },
)
async def plan(
    request: Request, caller: SubmitterOf, parts: PartsOf, body: SpecBodyOf, prefer: PreferOf = ""
) -> Response:
    """Plan a job: run its preflight alone, on a slot that no training takes. Nothing is trained, no job is made.

    Answers with what the job would do and take, or with the problem that would have failed it.
    """
    seconds = wait_seconds(prefer, usual=USUAL_WAIT, most=MOST_WAIT)
    plan_id = await run_in_threadpool(_enqueue, parts, caller, body)
    await parts.watching.wait_for_end(plan_id, seconds)
    found = await run_in_threadpool(_read, parts, caller, plan_id)
    location = f"/plans/{plan_id}"
    if found.error is not None:
        return answer_failure(request.scope, found.error, location)
    status = HTTPStatus.OK if found.terminal else HTTPStatus.ACCEPTED
    applied = {"Preference-Applied": f"wait={seconds}"} if prefer else {}
    return JSONResponse(found.model_dump(mode="json"), status, headers={"Location": location, **applied})


def _enqueue(parts: Parts, caller: Caller, body: bytes) -> str:
    sent = read_spec(body)
    admit(parts, caller.owner, sent.spec)
    queue = plans_of(queue_of(sent.spec, parts.settings.default_queue))
    with parts.db.writing() as session:
        hold_place(session, parts, caller, "plan")
        row = service.submit(session, owner=caller.owner, spec=sent.spec, raw=sent.raw, queue=queue, kind="plan")
    parts.ringer.ring(queue, row.id)
    return row.id


def _read(parts: Parts, caller: Caller, plan_id: str) -> Planning:
    with parts.db.reading() as session:
        return _full(session, service.find(session, caller.owner, plan_id, "plan"))


def _full(session: Session, row: JobRow) -> Planning:
    return planning_resource(row, service.queue_place(session, row))


@router.get("/plans/{plan_id}", responses=declared(UnauthenticatedError, NotFoundError))
def show_plan(caller: ReaderOf, parts: PartsOf, plan_id: str) -> Planning:
    """Read a plan. It is kept for a day, unless the operator chose otherwise."""
    return _read(parts, caller, plan_id)


@router.post(
    "/plans/{plan_id}/cancel", status_code=202,
    responses=declared(UnauthenticatedError, NotFoundError, IllegalActionError),
)
def cancel_plan(caller: SubmitterOf, parts: PartsOf, plan_id: str) -> Planning:
    """Cancel a plan: at once while it waits; as soon as its worker has heard while it is made. Twice is no error."""
    with parts.db.writing() as session:
        found = _full(session, service.cancel(session, caller.owner, plan_id, "plan"))
    parts.announcer.announce(plan_id)
    return found


@router.get("/plans/{plan_id}/logs", responses=declared(UnauthenticatedError, NotFoundError))
def plan_logs(caller: ReaderOf, parts: PartsOf, plan_id: str) -> list[AttemptLog]:
    """Read what the trainer printed, by attempt; kept after a crash too."""
    with parts.db.reading() as session:
        service.find(session, caller.owner, plan_id, "plan")
        return [attempt_log(row) for row in service.attempts(session, plan_id)]
