"""How long things take: what preflight expects of each phase, and where the whole job stands."""

import time
from collections.abc import Callable, Mapping

from stillhouse.contract.events import PhaseStarted, Progressed
from stillhouse.contract.status import Phase

TELL_SECONDS = 0.25
HONEST_SECONDS = 1.0  # of a phase, before its pace says anything about the rest

Clock = Callable[[], float]


class Journey:
    """The whole job as a line: each phase is as long as preflight expects it to take, so progress never goes back."""

    def __init__(self, expected: Mapping[Phase, float], clock: Clock = time.monotonic) -> None:
        self.expected = dict(expected)
        self._spent: dict[Phase, float] = {}
        self._clock = clock
        self._phase = Phase.PREFLIGHT
        self._total: int | None = None
        self._entered = self._told = clock()
        self._first_step = self._told_samples = 0

    def enter(self, phase: Phase, total_steps: int | None = None, *, done: int = 0) -> PhaseStarted:
        """Begin a phase, of whose steps some may be done by an earlier attempt."""
        self._close()
        self._phase, self._total, self._first_step = phase, total_steps, done
        self._told_samples = -1
        return PhaseStarted(phase=phase, total_steps=total_steps)

    def is_due(self) -> bool:
        """Whether it is time to tell again."""
        return self._clock() - self._told >= TELL_SECONDS

    def tell(self, step: int, samples: int | None = None) -> Progressed:
        """Where the job stands after `step` steps of the phase; `samples` counts those seen in the phase so far."""
        now = self._clock()
        speed = None
        if samples is not None:
            if self._told_samples >= 0 and now > self._told:
                speed = (samples - self._told_samples) / (now - self._told)
            self._told_samples = samples
        self._told = now
        return Progressed(
            phase=self._phase, step=step, total_steps=self._total, percent=self._percent(step),
            samples_per_second=speed, eta_seconds=self._eta(step),
        )

    def seconds(self) -> dict[Phase, float]:
        """What each phase took so far, earlier attempts included."""
        running = self._spent.get(self._phase, 0.0) + self._clock() - self._entered
        return self._spent | {self._phase: running}

    def resume(self, expected: Mapping[Phase, float], spent: Mapping[Phase, float]) -> None:
        """Go on where an earlier attempt's checkpoint stood, on its scale."""
        self.expected = dict(expected)
        for phase, seconds in spent.items():
            self._spent[phase] = self._spent.get(phase, 0.0) + seconds

    def _close(self) -> None:
        self._spent = self.seconds()
        self._entered = self._told = self._clock()

    def _share(self, step: int) -> float:
        return min(1.0, step / self._total) if self._total else 0.0

    def _percent(self, step: int) -> float:
        order = list(Phase)
        before = sum(self.expected.get(phase, 0.0) for phase in order[: order.index(self._phase)])
        here = self.expected.get(self._phase, 0.0) * self._share(step)
        return min(100.0, 100 * (before + here) / max(sum(self.expected.values()), 1e-9))

    def _eta(self, step: int) -> float | None:
        """Null until the phase has run long enough for its pace to be known."""
        took = self._clock() - self._entered
        expected_of_done = self.expected.get(self._phase, 0.0) * (self._share(step) - self._share(self._first_step))
        if took < HONEST_SECONDS or expected_of_done <= 0:
            return None
        total = sum(self.expected.values())
        return took / expected_of_done * total * (1 - self._percent(step) / 100)
