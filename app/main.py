"""The API as an ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
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
from app.http.patience import Patience
from app.http.rates import Rates
from app.http.seats import Seats
from app.http.turns import Turns
from app.jobs.control import router as control
from app.jobs.endpoints import router as jobs
from app.jobs.watching import Watching, reader
from app.keys import bootstrap
from app.keys.endpoints import router as keys
from app.kit.database import Database
from app.plans.endpoints import router as plans
from app.queue import Ringer
from app.recipes.endpoints import router as recipes
from app.settings import Settings
from app.storage.stores import open_stores
from app.storage.watched import watched
from app.uploads.endpoints import router as uploads
from app.uploads.protocol import Tus
from app.webhooks.courier import delivering
from app.webhooks.endpoints import router as webhooks
from app.webhooks.sending import Sender
from stillhouse import __version__
from stillhouse.contract.failures import ForbiddenOriginError


def create_app(settings: Settings) -> FastAPI:
    """The application with all its parts. The database must have its tables when it starts."""
    parts = _make_parts(settings)
    app = FastAPI(
        title="Stillhouse", version=__version__, lifespan=_lifespan, redirect_slashes=False, redoc_url=None,
    )
    app.state.parts = parts
    routers = (jobs, control, plans, recipes, artifacts, uploads, webhooks, keys, service)
    for router in routers:
        app.include_router(router)
    problems.install(app, [route for router in routers for route in router.routes if isinstance(route, APIRoute)])
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(Patience, seconds=settings.client_seconds)
    app.add_middleware(Tus)
    app.add_middleware(Doorman, allowed_hosts=settings.allowed_hosts, refuse=_refuse)
    app.add_middleware(Naming, observe=parts.numbers.observe)
    return app


def _make_parts(settings: Settings) -> Parts:
    db = Database(settings.database_url)
    watching = Watching(reader(db))
    numbers = Numbers(db, watching, stalled_seconds=settings.stalled_seconds)
    return Parts(
        settings=settings, db=db, stores=watched(open_stores(db, settings), numbers.stores),
        announcer=announce(settings.broker_url), ringer=Ringer(settings.broker_url), watching=watching,
        numbers=numbers, rates=Rates(settings.broker_url),
        seats=Seats(settings.max_streams, settings.max_streams_per_key), turns=Turns(),
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    with parts.db.writing() as session:
        bootstrap.ensure(session, parts.settings)
    sender = Sender(allow_private=parts.settings.webhook_allow_private)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(parts.db.dispose)
        stack.callback(parts.stores.close)
        stack.callback(parts.announcer.close)
        stack.enter_context(parts.ringer)
        ring = await stack.enter_async_context(
            delivering(parts.db, sender, keep_days=parts.settings.webhook_log_days)
        )
        hear = partial(_hear, parts.watching, ring)
        stack.push_async_callback(_end, asyncio.create_task(listen(parts.settings.broker_url, hear)))
        yield


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _hear(watching: Watching, ring: Callable[[], None], job_id: str) -> None:
    watching.ring(job_id)
    ring()


def _refuse(scope: Scope) -> ASGIApp:
    return partial(problems.answer, error=ForbiddenOriginError())(scope)
