"""From the pipe to the database. A slow database never stops the trainer: what waits is merged where it may be."""

import logging
import threading
from collections.abc import Callable, Sequence

from app.doorbell import Announcer
from app.jobs import life
from app.jobs.life import Claim
from app.kit.database import Database
from stillhouse.contract.events import Measured, Progressed, TrainerEvent
from worker.child import Child
from worker.lease import Lease
from worker.orders import ProtocolError, Word, receive_event

# From here on, values of a metric at steps close together become one.
MERGE_METRICS_ABOVE = 256
# A trainer that talks more than the database can take waits from here on.
MAX_WAITING = 4096

log = logging.getLogger(__name__)


class Inbox:
    """Words that came and are not heeded yet, and whether more can come."""

    def __init__(self, merged: Callable[[str], None] = lambda _type: None) -> None:
        """`merged` is told the type of each word that takes the place of an older one."""
        self._merged = merged
        self._waiting: list[Word] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._error: ProtocolError | None = None

    def put(self, event: Word) -> None:
        """Add a word; waits while too many are there."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < MAX_WAITING or self._is_over)
            if _merge(self._waiting, event):
                self._merged(event.type)
            self._changed.notify_all()

    def end(self, error: ProtocolError | None = None) -> None:
        """Nothing more will come, or nothing more is wanted."""
        with self._changed:
            self._is_over, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self, timeout_seconds: float) -> tuple[list[Word], bool]:
        """All that waits, and whether that was the last. Raises ProtocolError when the last was no event."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over, timeout_seconds)
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
            if not taken and self._error is not None:
                raise self._error
            return taken, self._is_over and self._error is None


def listen(child: Child, inbox: Inbox) -> threading.Thread:
    """Read what the trainer says into the inbox, on a thread of its own, until it is gone."""
    thread = threading.Thread(target=_listen, args=(child, inbox), name=f"trainer-{child.pid}", daemon=True)
    thread.start()
    return thread


def record(db: Database, announcer: Announcer, lease: Lease, claim: Claim, events: Sequence[TrainerEvent]) -> None:
    """Write events and wake whoever watches. Raises FencedError."""
    if not events:
        return
    lease.insist(lambda: life.record(db, claim, events))
    announcer.announce(claim.job_id)


def _listen(child: Child, inbox: Inbox) -> None:
    try:
        while child.has_word():
            inbox.put(receive_event(child.pipe))
        inbox.end()
    except EOFError:
        inbox.end()
    except ProtocolError as error:
        inbox.end(error)


def _merge(waiting: list[Word], event: Word) -> bool:
    """Add a word to those that wait, and tell whether it replaced one: progress does, metrics when many wait."""
    place = _replaceable(waiting, event)
    if place is None:
        waiting.append(event)
        return False
    older = waiting.pop(place)
    if isinstance(event, Measured) and isinstance(older, Measured):
        event = event.model_copy(update={"values": older.values | event.values})
    waiting.append(event)
    return True


def _replaceable(waiting: Sequence[Word], event: Word) -> int | None:
    """Index of the word whose place this one may take."""
    if isinstance(event, Progressed) or (isinstance(event, Measured) and len(waiting) >= MERGE_METRICS_ABOVE):
        for place in reversed(range(len(waiting))):
            older = waiting[place]
            if type(older) is type(event) and older.phase == event.phase:
                return place
    return None
