"""One attempt of this worker at one job, as the functions that carry it out pass it around."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.artifacts import service as artifacts
from app.artifacts.models import ArtifactRow
from app.jobs.life import Claim
from app.storage.base import MissingBlobError
from stillhouse.contract.events import TrainerEvent
from stillhouse.contract.failures import StagingFailedError
from stillhouse.contract.spec import JobSpec
from worker import recorder
from worker.lease import Lease
from worker.limits import Limits
from worker.pace import Pace
from worker.scratch import TrainerLog
from worker.workshop import Workshop


@dataclass(frozen=True)
class Attempt:
    """The claim, the lease on it, the folder that the trainer writes to, its log, and what it may take."""

    shop: Workshop
    claim: Claim
    lease: Lease
    folder: Path
    printed: TrainerLog
    device: str
    pace: Pace
    spec: JobSpec
    limits: Limits

    def check(self) -> None:
        """Raises FencedError, AskedToStopError or MaxRuntimeExceededError where no trainer is to be started."""
        self.lease.check()
        if self.lease.request() is None:  # what a user wants comes first
            self.limits.check()

    def record(self, events: Sequence[TrainerEvent]) -> None:
        """Write events into the job's log, and wake whoever watches. Raises FencedError."""
        recorder.record(self.shop.db, self.shop.announcer, self.lease, self.claim, events)
        self.pace.heed(events)

    def content(self, artifact: ArtifactRow) -> Iterator[bytes]:
        """The bytes of an artifact, in blocks. Raises StagingFailedError, AskedToStopError, FencedError."""
        try:
            for block in artifacts.content(self.shop.stores, artifact):
                self.lease.check()
                yield block
        except MissingBlobError as error:
            raise StagingFailedError(f"The content of {artifact.id} is gone.") from error
