"""What a trainer has written becomes artifacts: checkpoints on the way, results at the end."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from app.artifacts.service import StoreName, store_file
from app.jobs import life
from stillhouse.contract.events import CheckpointSaved, Finished, Noted, ProducedFile
from stillhouse.contract.resources import ArtifactKind
from stillhouse.contract.status import Status
from worker.attempt import Attempt
from worker.lease import OUTAGES
from worker.scratch import GoneError, produced

# Training goes on without a checkpoint rather than waiting for room on a disk.
_CHECKPOINT_SECONDS = 60.0
_FORMATS = {"bundle": "zip", "safetensors": "safetensors", "onnx": "onnx", "report_html": "html"}

log = logging.getLogger(__name__)


def keep_checkpoint(attempt: Attempt, event: CheckpointSaved) -> None:
    """Store the checkpoint, then say that the job can resume from it. Raises FencedError, ProtocolError."""
    try:
        attempt.lease.insist(lambda: _keep_checkpoint(attempt, event), _CHECKPOINT_SECONDS)
    except GoneError:  # the trainer has written a newer one since
        log.warning("job %s: the checkpoint of step %d was gone already", attempt.claim.job_id, event.step)
    except OUTAGES as error:
        attempt.record([Noted(
            level="warning", code="checkpoint_not_stored",
            message=f"The checkpoint of step {event.step} could not be stored: {error}",
        )])


def succeed(attempt: Attempt, finished: Finished) -> Status:
    """Store every result, then end the job with all of them. Raises FencedError, ProtocolError."""
    files = [(file.role, attempt.lease.insist(partial(_store_result, attempt, file))) for file in finished.files]
    return attempt.lease.insist(lambda: life.succeed(attempt.shop.db, attempt.claim, finished, files))


def _keep_checkpoint(attempt: Attempt, event: CheckpointSaved) -> None:
    artifact_id = store(attempt, event.file, kind="state", format="checkpoint", into="files")
    num_kept = attempt.shop.settings.kept_checkpoints
    life.save_checkpoint(attempt.shop.db, attempt.claim, event, artifact_id, num_kept=num_kept)


def _store_result(attempt: Attempt, file: ProducedFile) -> str:
    with produced(attempt.folder, file.file) as opened:
        size = opened.seek(0, 2)
    fits = size <= attempt.shop.settings.max_database_model_bytes
    return store(
        attempt, file.file, kind="model", format=_FORMATS[file.role], into="database" if fits else "files"
    )


def store(
    attempt: Attempt, file: str, *, kind: ArtifactKind, format: str, into: StoreName, name: str | None = None,  # noqa: A002 - as the column
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Store a file of the trainer's as an artifact of the job; its id. Raises ProtocolError, StorageFullError."""
    with produced(attempt.folder, file) as opened:
        return store_file(
            attempt.shop.db, attempt.shop.stores, opened,
            owner=attempt.claim.owner, kind=kind, name=name or Path(file).name, format=format,
            job_id=attempt.claim.job_id, into=into, facts=facts,
        ).id
