"""A job is a worker's for as long as its lease is renewed. Each renewal also tells what the user wants."""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import MappingProxyType
from typing import Final, Literal, Self, TypeVar

import stamina
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.jobs import life
from app.jobs.life import Claim, FencedError
from app.kit.database import Database
from stillhouse.contract.failures import StorageFullError, UnavailableError
from stillhouse.contract.status import Request, Status

# What may mend itself: the same again, a moment later, may work.
OUTAGES: Final = (OperationalError, InterfaceError, PoolTimeoutError, StorageFullError, UnavailableError, OSError)

T = TypeVar("T")

_MAX_RENEWAL_SECONDS: Final = 2.0  # also how long a cancelled job runs on
_WISHES: Final = MappingProxyType({Status.PAUSING: Request.PAUSE, Status.CANCELLING: Request.CANCEL})

log = logging.getLogger(__name__)


class AskedToStopError(Exception):
    """The job is to stop before its trainer has started."""

    def __init__(self, request: Request) -> None:
        self.request = request
        super().__init__(request)


class Lease:
    """Renewed by a timer while the `with` block lasts."""

    def __init__(
        self,
        db: Database,
        claim: Claim,
        *,
        seconds: float,
        grace_seconds: float,
        draining: threading.Event,
        on_renewal: Callable[[], None],
        count: Callable[[Literal["renewed", "failed", "fenced"]], None] = lambda _outcome: None,
    ) -> None:
        self._db = db
        self._claim = claim
        self._seconds = seconds
        self._grace_seconds = grace_seconds
        self._draining = draining
        self._on_renewal = on_renewal
        self._count = count
        self._status = Status.CANCELLING if claim.keep else Status.RUNNING
        self._keep = claim.keep
        self._is_lost = False
        self._over = threading.Event()
        # The context goes along, for what its log lines are about.
        self._timer = threading.Thread(
            target=copy_context().run, args=(self._renew_by_timer,), name=f"lease-{claim.job_id}", daemon=True
        )

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._timer.join()

    def request(self) -> Request | None:
        """What the trainer is to be asked: the user's wish, else to drain. Raises FencedError when the job is lost."""
        if self._is_lost:
            raise FencedError(self._claim.job_id)
        if self._status is Status.CANCELLING and self._keep:
            return Request.DRAIN if self._draining.is_set() else Request.FINISH  # another worker will
        return _WISHES.get(self._status) or (Request.DRAIN if self._draining.is_set() else None)

    def stop_request(self) -> Request | None:
        """What is asked, if it is to let go of the job. Raises FencedError."""
        request = self.request()
        return None if request is Request.FINISH else request

    def check(self) -> None:
        """Raises AskedToStopError or FencedError when there is a reason to."""
        if request := self.stop_request():
            raise AskedToStopError(request)

    def insist(self, do: Callable[[], T], timeout_seconds: float | None = None) -> T:
        """Try until it works, the time is up or the lease is lost; in vain, the last error is raised.

        Asked to stop meanwhile, it gives up after the grace.
        """
        since = time.monotonic()

        def may_mend(error: Exception) -> bool:
            if not isinstance(error, OUTAGES):
                return False
            return self.stop_request() is None or time.monotonic() - since < self._grace_seconds

        for attempt in stamina.retry_context(
            on=may_mend, attempts=None, timeout=timeout_seconds, wait_initial=0.1, wait_max=2.0, wait_jitter=0.2
        ):
            with attempt:
                return do()
        raise AssertionError("the last attempt returns or raises")

    def _renew_by_timer(self) -> None:
        pause = min(self._seconds / 3, _MAX_RENEWAL_SECONDS)
        while not self._over.wait(pause):
            try:
                status = life.renew(self._db, self._claim, self._seconds)
                self._count("renewed")
                if status is Status.CANCELLING:
                    self._keep = life.kept(self._db, self._claim)
                self._status = status
                self._on_renewal()
            except FencedError:
                self._is_lost = True
                self._count("fenced")
                return
            except OUTAGES as error:
                self._count("failed")
                # Whoever else could take the job cannot reach the database either: hold on.
                log.warning("job %s: the lease was not renewed: %s", self._claim.job_id, error)
