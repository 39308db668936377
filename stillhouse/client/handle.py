"""One job, as its submitter holds it."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from time import monotonic, sleep

from stillhouse.client.connection import PATIENCE, Connection, Params, parsed
from stillhouse.client.errors import StillhouseClientError
from stillhouse.client.progress import ProgressCallback
from stillhouse.client.transfer import download
from stillhouse.client.watch import watch
from stillhouse.contract.events import RecordedEvent
from stillhouse.contract.report import Report
from stillhouse.contract.resources import Attempt, AttemptLog, Checkpoint, Job, MetricSeries, ModelFormat
from stillhouse.contract.status import Keep

_SUFFIXES = {"zip": ".zip", "safetensors": ".safetensors", "onnx": ".onnx"}


class JobHandle:
    """A job of the service. `job` is what was last read of it; `refresh` reads it again."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self.job = job
        self._etag: str | None = None  # of `job`, where it was read by `refresh`

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def status(self) -> str:
        """The status as last read; possibly one of a newer service."""
        return str(self.job.status)

    @property
    def _path(self) -> str:
        return f"/jobs/{self.id}"

    def refresh(self, *, wait: float = 0) -> Job:
        """Read the job again: now, or when it stands otherwise than last read, at the latest after `wait` seconds.

        One request waits for at most 60 seconds.
        """
        return self._refresh(PATIENCE, wait=wait)

    def _refresh(self, patience: float, *, wait: float = 0) -> Job:
        known = {"If-None-Match": self._etag} if self._etag else {}
        response = self._connection.request(
            "GET", self._path, headers={"Prefer": f"wait={round(wait)}", **known}, patience=patience
        )
        self._etag = response.headers.get("etag")
        if response.status_code != HTTPStatus.NOT_MODIFIED:
            self.job = parsed(Job, response)
        return self.job

    def watch(self, *, after: int = 0, patience: float = 120.0) -> Iterator[RecordedEvent]:
        """Each event of the job as it happens, from `seq` above `after`; ends when the job has ended.

        Broken connections are resumed without losing or repeating an event. A service that stays out of reach for
        `patience` seconds raises ServiceUnreachableError.
        """
        return watch(self._connection, self.id, after=after, patience=patience)

    def wait(self, *, timeout: float | None = None) -> Job:
        """The job after it has ended. After `timeout` seconds TimeoutError is raised; the job goes on."""
        if timeout is None:
            for _ in self.watch():
                pass
            return self.refresh()
        deadline = monotonic() + timeout
        while not self._refresh(min(PATIENCE, deadline - monotonic())).terminal:
            if monotonic() >= deadline:
                raise TimeoutError(f"job {self.id} is still {self.status} after {timeout:g} s; it goes on")
            sleep(min(0.5, timeout))
        return self.job

    def cancel(self, *, keep: Keep | None = None) -> Job:
        """Ask the job to stop. A running one becomes `cancelling` first.

        With `keep="best"` the best student so far becomes the job's model, where there is one.
        """
        return self._ask("cancel", {"keep": keep})

    def pause(self) -> Job:
        """Ask the job to give its slot back. A running one becomes `pausing` first, and writes a checkpoint."""
        return self._ask("pause")

    def resume(self) -> Job:
        """Queue the paused job again; it goes on from its checkpoint."""
        return self._ask("resume")

    def update(
        self, *, name: str | None = None, labels: Mapping[str, str | None] | None = None, priority: int | None = None
    ) -> Job:
        """Change what is given. A label of None is removed, others stay as they are; an empty name removes the name."""
        given = {"name": name, "labels": None if labels is None else dict(labels), "priority": priority}
        change = {field: None if value == "" else value for field, value in given.items() if value is not None}
        self.job, self._etag = parsed(Job, self._connection.request("PATCH", self._path, json=change)), None
        return self.job

    def retry(self, *, idempotency_key: str | None = None) -> "JobHandle":
        """A new job of the same spec, once this one has ended.

        Repeating a call with the same `idempotency_key` gives the same job, not another one.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        response = self._connection.request("POST", f"{self._path}/retry", headers=headers)
        return JobHandle(self._connection, parsed(Job, response))

    def _ask(self, action: str, params: Params | None = None) -> Job:
        response = self._connection.request("POST", f"{self._path}/{action}", params=params)
        self.job, self._etag = parsed(Job, response), None
        return self.job

    def download(
        self, path: str | Path | None = None, *, format: ModelFormat = "zip",  # noqa: A002 - the API's word
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Fetch the compressed model to `path` (a file or a folder; the working folder when left out).

        The file appears only when it is whole and has the declared sha256.
        """
        target = Path(path) if path is not None else Path()
        if target.is_dir():
            target /= f"{self.id}{_SUFFIXES[format]}"
        return download(self._connection, f"{self._path}/model", target, params={"format": format}, progress=progress)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints that are stored, oldest first; none once the job has ended."""
        return self._connection.read_list(Checkpoint, f"{self._path}/checkpoints")

    def download_checkpoint(
        self, path: str | Path | None = None, *, checkpoint: Checkpoint | None = None,
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Fetch a checkpoint, the last one when left out, to `path` (a file or a folder, as for `download`).

        Raises StillhouseClientError when there is none.
        """
        chosen = checkpoint or next(reversed(self.checkpoints()), None)
        if chosen is None:
            raise StillhouseClientError(f"there is no checkpoint of {self.id}, which is {self.status}")
        target = Path(path) if path is not None else Path()
        if target.is_dir():
            target /= f"{self.id}-{chosen.phase}-{chosen.step}.safetensors"
        return download(
            self._connection, f"/artifacts/{chosen.artifact_id}/content", target, progress=progress
        )

    def report(self) -> Report:
        """What the compressed model kept, and how that was measured."""
        return self._connection.read(Report, f"{self._path}/report")

    def report_html(self, path: str | Path) -> Path:
        """Fetch the report as one self-contained page."""
        return download(self._connection, f"{self._path}/report", Path(path), params={"format": "html"})

    def metrics(self) -> Sequence[MetricSeries]:
        """Each metric over the steps of its phase."""
        return self._connection.read_list(MetricSeries, f"{self._path}/metrics")

    def attempts(self) -> Sequence[Attempt]:
        """Who had a go at the job, when, how that ended and why; oldest first."""
        return self._connection.read_list(Attempt, f"{self._path}/attempts")

    def logs(self) -> Sequence[AttemptLog]:
        """What the trainer of each attempt printed."""
        return self._connection.read_list(AttemptLog, f"{self._path}/logs")
