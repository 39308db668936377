"""The client: one method per thing that the service does."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import inf
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from stillhouse.client.connection import PATIENCE, Connection, Params, pages, parsed
from stillhouse.client.errors import StillhouseClientError, error_of_failure
from stillhouse.client.formats import guess_format, guess_kind
from stillhouse.client.handle import JobHandle
from stillhouse.client.progress import ProgressCallback
from stillhouse.client.transfer import download, upload
from stillhouse.client.webhooks import Webhooks
from stillhouse.contract.plan import Plan
from stillhouse.contract.resources import (
    ApiKey,
    Artifact,
    CreatedApiKey,
    HeldKey,
    Job,
    KeyLimits,
    ListedRecipe,
    Planning,
    Resource,
    Scope,
    UploadFormat,
    UploadKind,
)
from stillhouse.contract.spec import JobSpec
from stillhouse.home import find_service

DEFAULT_URL = "http://127.0.0.1:8765"
# Seconds: how long a request waits for its plan, and how often one that takes longer is asked for.
PLAN_WAIT = 60
PLAN_POLL = 0.5
Item = TypeVar("Item", bound=Resource)


class Client:
    """A connection to the service.

    What is left out comes from STILLHOUSE_URL and STILLHOUSE_API_KEY, else from the local service of the working
    folder (`stillhouse up`).
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        address = find_service(url, key)
        self._connection = Connection(address.url if address else DEFAULT_URL, address.key if address else key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._connection.url

    @property
    def webhooks(self) -> Webhooks:
        """Receivers of events of this owner's jobs."""
        return Webhooks(self._connection)

    def close(self) -> None:
        """Close the sockets."""
        self._connection.close()

    # Artifacts

    def upload(
        self, path: str | Path, *, kind: UploadKind | None = None, name: str | None = None,
        format: UploadFormat | None = None,  # noqa: A002 - the API's word
        progress: ProgressCallback | None = None,
    ) -> Artifact:
        """Store a file: a teacher's weights, or data. Kind and format are read from the file when left out.

        Streamed in constant memory, and checked: what the service stored has the sha256 of what was sent.
        """
        file = Path(path)
        format = format or guess_format(file)  # noqa: A001 - the API's word
        params: Params = {"kind": kind or guess_kind(format), "format": format, "name": name or file.name}
        return upload(self._connection, file, params=params, progress=progress)

    def artifacts(self, *, kind: str | None = None) -> Iterator[Artifact]:
        """Every stored file, newest first."""
        return self._pages(Artifact, "/artifacts", {"kind": kind})

    def artifact(self, artifact_id: str) -> Artifact:
        """One stored file."""
        return self._connection.read(Artifact, f"/artifacts/{artifact_id}")

    def download_artifact(
        self, artifact_id: str, path: str | Path, *, progress: ProgressCallback | None = None
    ) -> Path:
        """Fetch the bytes of a stored file; they appear at `path` only when they are whole."""
        return download(self._connection, f"/artifacts/{artifact_id}/content", Path(path), progress=progress)

    def delete_artifact(self, artifact_id: str) -> None:
        """Delete a stored file that no unfinished job needs."""
        self._connection.request("DELETE", f"/artifacts/{artifact_id}")

    # Jobs

    def submit(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> JobHandle:
        """Queue a job. Repeating a call with the same `idempotency_key` gives the same job, not another one."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        response = self._connection.request("POST", "/jobs", json=_body(spec), headers=headers)
        return JobHandle(self._connection, parsed(Job, response))

    def plan(self, spec: JobSpec | Mapping[str, Any], *, timeout: float | None = None) -> Plan:
        """What a job of this spec would do and take. Its preflight runs, and nothing is trained.

        Raises StillhouseApiError with what would have failed the job, or TimeoutError after `timeout` seconds.
        """
        deadline = inf if timeout is None else monotonic() + timeout
        headers = {"Prefer": f"wait={max(0, round(min(PLAN_WAIT, deadline - monotonic())))}"}
        planning = parsed(
            Planning, self._connection.request(
                "POST", "/plans", json=_body(spec), headers=headers, patience=min(PATIENCE, deadline - monotonic()),
            )
        )
        while not planning.terminal:
            if monotonic() >= deadline:
                raise TimeoutError(f"{planning.id} is still {planning.status} after {timeout:g} s")
            sleep(PLAN_POLL)
            planning = self._connection.read(
                Planning, f"/plans/{planning.id}", patience=min(PATIENCE, deadline - monotonic())
            )
        if planning.error is not None:
            raise error_of_failure(planning.error, f"/plans/{planning.id}")
        if planning.plan is None:
            raise StillhouseClientError(f"{planning.id} was {planning.status} before it was made")
        return planning.plan

    def job(self, job_id: str) -> JobHandle:
        """One job."""
        return JobHandle(self._connection, self._connection.read(Job, f"/jobs/{job_id}"))

    def jobs(
        self, *, status: str | None = None, name: str | None = None, label: Mapping[str, str] | None = None
    ) -> Iterator[Job]:
        """Every job that fits, newest first."""
        labels = [f"{key}:{value}" for key, value in (label or {}).items()]
        return self._pages(Job, "/jobs", {"status": status, "name": name, "label": labels or None})

    # Recipes

    def recipes(self) -> list[ListedRecipe]:
        """Every recipe that a spec may name, with what was measured of it."""
        return list(self._pages(ListedRecipe, "/recipes", {}))

    # Keys

    def keys(self, *, owner: str | None = None) -> Iterator[ApiKey]:
        """Every API key of this owner, without its secret. Another's takes the scope admin."""
        return self._pages(ApiKey, "/keys", {"owner": owner})

    def current_key(self) -> HeldKey:
        """The key of this client: what it may do, its limits, and what is used of them."""
        return self._connection.read(HeldKey, "/keys/current")

    def create_key(
        self, name: str, *, owner: str | None = None, scopes: Sequence[Scope] | None = None,
        expires_at: datetime | None = None, limits: KeyLimits | None = None,
    ) -> CreatedApiKey:
        """A new API key, which takes the scope admin. Its secret is told this once.

        It may read and submit unless `scopes` says otherwise, and never expires without `expires_at` (with a zone).
        """
        body = {
            "owner": owner, "scopes": None if scopes is None else list(scopes),
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "limits": None if limits is None else limits.model_dump(exclude_none=True) or None,
        }
        sent = {"name": name, **{field: value for field, value in body.items() if value is not None}}
        return parsed(CreatedApiKey, self._connection.request("POST", "/keys", json=sent, repeatable=False))

    def rotate_key(self, key_id: str, *, overlap_seconds: int | None = None) -> CreatedApiKey:
        """A new secret for a key, told this once; the one before stays valid for the overlap (a day)."""
        body = {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}
        path = f"/keys/{key_id}/rotate"
        return parsed(CreatedApiKey, self._connection.request("POST", path, json=body, repeatable=False))

    def revoke_key(self, key_id: str) -> None:
        """Make an API key useless from now on."""
        self._connection.request("DELETE", f"/keys/{key_id}")

    def _pages(self, model: type[Item], path: str, params: Params) -> Iterator[Item]:
        return pages(self._connection, model, path, params)


def _body(spec: JobSpec | Mapping[str, Any]) -> dict[str, Any]:
    return as_sent(spec) if isinstance(spec, JobSpec) else dict(spec)


def as_sent(spec: BaseModel) -> dict[str, Any]:
    """A spec as JSON with only what its author set, so that a service of another version can read it."""
    kept = {name: getattr(spec, name) for name in type(spec).model_fields if name in spec.model_fields_set}
    if "kind" in type(spec).model_fields:
        kept["kind"] = getattr(spec, "kind", None)
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return as_sent(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
