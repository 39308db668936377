"""The supervisor's end of the store of soft labels: shards are looked up, staged and lent to the trainer."""

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from app.artifacts.models import ArtifactRow
from app.jobs import life
from app.soft_labels import service as soft_labels
from stillhouse.contract.events import Noted, SoftLabelsSaved
from stillhouse.contract.failures import StagingFailedError
from stillhouse.contract.lending import Lent, Wanted
from worker.attempt import Attempt
from worker.lease import OUTAGES, AskedToStopError
from worker.results import store
from worker.scratch import GoneError
from worker.staging import Input, show

_STAGING_SECONDS: Final = 60.0
# Labelling goes on without the store rather than waiting for room on a disk.
_SHARD_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


class Lender:
    """Answers the trainer of one attempt; what it lends stays in the cache until the stack unwinds."""

    def __init__(self, attempt: Attempt, held: ExitStack, folder: Path | None) -> None:
        self._attempt = attempt
        self._held = held
        self._folder = folder

    def answer(self, wanted: Wanted) -> Lent:
        """What is there, verified and staged, and what the trainer is to make. Raises FencedError.

        Empty where the job is to stop: the trainer is about to hear of it.
        """
        shop, claim, lease = self._attempt.shop, self._attempt.claim, self._attempt.lease
        try:
            lending = lease.insist(lambda: life.lend(shop.db, claim, wanted.keys, wanted.num_to_make))
            paths = {key: self._stage(key, artifact) for key, artifact in lending.ready.items()}
        except AskedToStopError:
            return Lent()
        return Lent(
            ready={key: path for key, path in paths.items() if path is not None}, to_make=lending.to_make,
            makers=lending.makers, seconds_saved=lending.seconds_saved,
        )

    def keep(self, event: SoftLabelsSaved) -> None:
        """Store a shard that the trainer made, then say that it is there. Raises FencedError, ProtocolError."""
        try:
            self._attempt.lease.insist(lambda: self._keep(event), _SHARD_SECONDS)
        except GoneError:
            log.warning("job %s: a shard of soft labels was gone already", self._attempt.claim.job_id)
        except OUTAGES as error:
            self._attempt.record([Noted(
                level="warning", code="soft_labels_not_stored",
                message=f"Soft labels could not be stored, and will not be shared: {error}", data={"key": event.key},
            )])

    def _keep(self, event: SoftLabelsSaved) -> None:
        artifact_id = store(
            self._attempt, event.file, kind="soft_labels", format="safetensors", into="files",
            name=f"{event.split}-view{event.view}-{event.shard}.safetensors", facts=soft_labels.facts(event),
        )
        life.save_soft_labels(self._attempt.shop.db, self._attempt.claim, event, artifact_id)

    def _stage(self, key: str, artifact: ArtifactRow) -> Path | None:
        """The shard as a local file; None where the store has lost it, and then nobody is lent it any more."""
        attempt = self._attempt
        wanted = Input(artifact.sha256, artifact.size, partial(attempt.content, artifact))
        staged = attempt.shop.cache.staged
        try:
            path = attempt.lease.insist(lambda: self._held.enter_context(staged({key: wanted})), _STAGING_SECONDS)[key]
            return path if self._folder is None else attempt.lease.insist(partial(show, path, self._folder / key))
        except StagingFailedError as error:
            log.warning("job %s: a shard of soft labels is lost: %s", attempt.claim.job_id, error)
            attempt.lease.insist(lambda: self._drop(key))
            return None

    def _drop(self, key: str) -> None:
        with self._attempt.shop.db.writing() as session:
            soft_labels.drop(session, self._attempt.claim.owner, [key])
