"""How long one attempt may go on, and how long its trainer may be silent: by this worker's own clock."""

from math import inf
from time import monotonic

from app.jobs.life import Claim
from app.settings import Settings
from stillhouse.contract.failures import MaxRuntimeExceededError
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Request


class Limits:
    """Counts from now on; what earlier attempts took comes with the claim. Belongs to the supervisor's thread."""

    def __init__(self, spec: JobSpec, claim: Claim, settings: Settings) -> None:
        self.max_silence = settings.stall_limit_seconds or inf
        self._own, self._general = spec.max_runtime or inf, settings.max_runtime_seconds or inf
        # Preflight alone is no run of the job.
        self._most = inf if claim.kind == "plan" else min(self._own, self._general)
        self._keeps_best = spec.on_max_runtime == "keep_best"
        self._began = monotonic() - claim.used_seconds
        self._heard = monotonic()

    def hear(self) -> None:
        """The trainer speaks, or could begin to."""
        self._heard = monotonic()

    @property
    def is_stalled(self) -> bool:
        """Whether the trainer has been silent for too long."""
        return monotonic() - self._heard > self.max_silence

    @property
    def is_used_up(self) -> bool:
        """Whether the job has run for as long as it may."""
        return monotonic() - self._began > self._most

    def request(self) -> Request | None:
        """What the trainer is to be asked, once the run time is used up."""
        if not self.is_used_up:
            return None
        return Request.FINISH if self._keeps_best else Request.DRAIN

    def check(self) -> None:
        """Raises MaxRuntimeExceededError where no trainer is worth starting."""
        if self.is_used_up and not self._keeps_best:
            raise self.exceeded()

    def exceeded(self) -> MaxRuntimeExceededError:
        """What ends the job, with what to do about it."""
        ran = f"The job has run for {self._most:,.10g} s"
        if self._general < self._own:
            return MaxRuntimeExceededError(
                f"{ran}, as long as this service lets any job run; train for fewer epochs, or ask the operator."
            )
        advice = (
            "there was no student to keep yet" if self._keeps_best
            else "set on_max_runtime to keep_best to have the best student so far"
        )
        return MaxRuntimeExceededError(
            f"{ran}, its max_runtime; raise it, or train for fewer epochs; {advice}.", param="/max_runtime"
        )
