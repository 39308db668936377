"""What endpoints work with: one set per application, made at its start."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.doorbell import Announcer
from app.http.numbers import Numbers
from app.http.rates import Rates
from app.http.seats import Seats
from app.http.turns import Turns
from app.jobs.watching import Watching
from app.kit.database import Database
from app.queue import Ringer
from app.settings import Settings
from app.storage.stores import Stores


@dataclass(frozen=True)
class Parts:
    """The parts of this installation."""

    settings: Settings
    db: Database
    stores: Stores
    announcer: Announcer
    ringer: Ringer
    watching: Watching
    numbers: Numbers
    rates: Rates
    seats: Seats
    turns: Turns


async def _parts(request: Request) -> Parts:  # async: it is not worth a thread
    found: Parts = request.app.state.parts
    return found


PartsOf = Annotated[Parts, Depends(_parts)]
