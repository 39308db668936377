"""One attempt of this worker at one job, as the functions that carry it out pass it around."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.jobs.life import Claim
from stillhouse.contract.events import TrainerEvent
from worker import recorder
from worker.lease import Lease
from worker.scratch import TrainerLog
from worker.workshop import Workshop


@dataclass(frozen=True)
class Attempt:
    """The claim, the lease on it, the folder that the trainer writes to and the log of what it printed."""

    shop: Workshop
    claim: Claim
    lease: Lease
    folder: Path
    printed: TrainerLog
    device: str

    def record(self, events: Sequence[TrainerEvent]) -> None:
        """Write events into the job's log, and wake whoever watches. Raises FencedError."""
        recorder.record(self.shop.db, self.shop.announcer, self.lease, self.claim, events)
