"""The API as an ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Scope

from app.artifacts.endpoints import router as artifacts
from app.doorbell import announce, listen
from app.http import openapi, problems
from app.http.endpoints import router as service
from app.http.guard import Doorman, Naming
from app.http.numbers import Numbers
from app.http.parts import Parts
from app.jobs.control import router as control
from app.jobs.endpoints import router as jobs
from app.jobs.watching import Watching, reader
from app.keys import bootstrap
from app.keys.endpoints import router as keys
from app.kit.database import Database
from app.plans.endpoints import router as plans
from app.recipes.endpoints import router as recipes
from app.settings import Settings
from app.storage.stores import open_stores
from stillhouse import __version__
from stillhouse.contract.failures import ForbiddenOriginError


def create_app(settings: Settings) -> FastAPI:
    """The application with all its parts. The database must have its tables when it starts."""
    parts = _make_parts(settings)
    app = FastAPI(
        title="Stillhouse", version=__version__, lifespan=_lifespan, redirect_slashes=False, redoc_url=None,
    )
    app.state.parts = parts
    routers = (jobs, control, plans, recipes, artifacts, keys, service)
    for router in routers:
        app.include_router(router)
    problems.install(app, [route for router in routers for route in router.routes if isinstance(route, APIRoute)])
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(Doorman, allowed_hosts=settings.allowed_hosts, refuse=_refuse)
    app.add_middleware(Naming, observe=parts.numbers.observe)
    return app


def _make_parts(settings: Settings) -> Parts:
    db = Database(settings.database_url)
    return Parts(
        settings=settings, db=db, stores=open_stores(db, settings), announcer=announce(settings.broker_url),
        watching=Watching(reader(db)), numbers=Numbers(db),
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    with parts.db.writing() as session:
        bootstrap.ensure(session, parts.settings)
    listening = asyncio.create_task(listen(parts.settings.broker_url, parts.watching.ring))
    try:
        yield
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        parts.announcer.close()
        parts.db.dispose()


def _refuse(scope: Scope) -> ASGIApp:
    return partial(problems.answer, error=ForbiddenOriginError())(scope)
