"""How the service itself is: alive, ready, its numbers, and the schema of a job."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.http.access import ReaderOf
from app.http.parts import Parts, PartsOf
from app.http.problems import declared
from app.jobs.models import JobRow
from stillhouse.contract.failures import FieldError, StorageFullError, UnauthenticatedError, UnavailableError
from stillhouse.contract.spec import JobSpec

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """That a part works."""

    model_config = ConfigDict(frozen=True)

    status: str = "ok"


class Readiness(BaseModel):
    """That every part works."""

    model_config = ConfigDict(frozen=True)

    database: str = "ok"
    broker: str = "ok"
    store: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Whether this process answers at all."""
    return Health()


@router.get("/readyz", responses=declared(UnavailableError))
def readyz(parts: PartsOf) -> Readiness:
    """Whether this process can do its work: database, broker and store are in reach."""
    told = Readiness(database=_database(parts), broker=_broker(parts), store=_store(parts))
    wrong = [FieldError(pointer=part, detail=state) for part, state in told if state != "ok"]
    if wrong:
        raise UnavailableError("; ".join(f"{part.pointer}: {part.detail}" for part in wrong), errors=wrong)
    return told


def _database(parts: Parts) -> str:
    try:
        with parts.db.reading() as session:
            session.execute(select(JobRow.id).limit(1))
    except SQLAlchemyError:
        return "out of reach, or without its tables"
    return "ok"


def _broker(parts: Parts) -> str:
    return "ok" if parts.announcer.answers() else "out of reach"


def _store(parts: Parts) -> str:
    try:
        parts.stores.files.check()
    except StorageFullError:
        return "full"
    except (OSError, UnavailableError):
        return "out of reach"
    return "ok"


@router.get(
    "/metrics", response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **declared(UnauthenticatedError)},
)
def metrics(_caller: ReaderOf, parts: PartsOf) -> Response:
    """Numbers for Prometheus."""
    return Response(parts.numbers.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/schemas/job")
def job_schema() -> dict[str, Any]:
    """The JSON schema of a job spec: every field with its meaning, bounds and default."""
    return JobSpec.model_json_schema()
