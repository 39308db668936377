"""How one attempt goes on: its phase for the log lines, its steps and the time of its phases for the numbers."""

import time
from collections.abc import Iterable

from app.kit import logs
from stillhouse.contract.events import PhaseStarted, Progressed
from stillhouse.contract.status import Phase
from worker.numbers import Numbers
from worker.orders import Word


class Pace:
    """Follows the events of one attempt, which begins with staging. Belongs to the supervisor's thread."""

    def __init__(self, numbers: Numbers, *, is_resumed: bool) -> None:
        self._numbers = numbers
        self._phase = Phase.STAGING
        self._since = time.monotonic()
        # None: unknown. A resumed job tells first of steps that an earlier attempt has done.
        self._step: int | None = None
        self._is_resumed = is_resumed

    def heed(self, events: Iterable[Word]) -> None:
        """Take in what was recorded."""
        for event in events:
            self._numbers.recorded(event.type)
            if isinstance(event, PhaseStarted):
                self._begin(event.phase)
            elif isinstance(event, Progressed):
                self._advance(event)

    def finish(self) -> None:
        """The job is through its last phase."""
        self._numbers.passed(self._phase, time.monotonic() - self._since)

    def _begin(self, phase: Phase) -> None:
        self.finish()
        self._phase, self._since = phase, time.monotonic()
        self._step = None if self._is_resumed else 0
        logs.from_now_on(phase=phase)

    def _advance(self, event: Progressed) -> None:
        if self._step is not None and event.step > self._step:
            self._numbers.stepped(self._phase, event.step - self._step)
        self._step = event.step
        self._is_resumed = False
