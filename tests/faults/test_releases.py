"""Two releases at once, as in every deployment: what one has written, the other reads or leaves alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import insert

from app.jobs.models import JobEventRow
from app.kit.clock import now
from stillhouse.contract.events import Noted, UnknownEvent
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet
from tests.fixtures.jobs import upload
from tests.fixtures.recovery import Recovery

fault = pytest.mark.fault


@fault("a job of a later release while only older workers are up", sees="`queued` until a newer worker is up; no loss")
def test_an_old_worker_leaves_a_later_job_alone(fleet: Fleet, recovery: Recovery) -> None:
    later = fleet.desk.submit(labels={"noop.steps": "2"})
    fleet.desk.set(later, spec_version=2, priority=1)
    fleet.start_worker()
    fleet.ring(later)
    earlier = fleet.submit(steps=2)
    fleet.wait_for(earlier, Status.SUCCEEDED)
    assert (fleet.desk.row(later).status, fleet.desk.row(later).attempt) == (Status.QUEUED, 0)
    fleet.desk.set(later, spec_version=1)  # which is what a newer worker reads of its own
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(later).status == Status.SUCCEEDED)


@fault("a job's checkpoint and events were written by another release", sees="it starts anew; an event says why")
@pytest.mark.slow
def test_a_checkpoint_of_another_release(fleet: Fleet, recovery: Recovery, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", inputs=draws.normal(size=(64, 4)).astype(np.float32), labels=np.arange(64) % 2)
    data = upload(fleet.desk.db, fleet.desk.stores, (tmp_path / "rows.npz").read_bytes()).id
    mlp = {"kind": "mlp", "hidden": [4]}
    spec: dict[str, Any] = {
        "teacher": {"kind": "train", "architecture": mlp, "training": {"epochs": 1}}, "student": mlp,
        "data": {"kind": "npz", "train": {"artifact": data}}, "training": {"epochs": 1}, "control": False,
    }
    with fleet.desk.db.writing() as session:
        job_id = fleet.desk.submit_in(session, data, **spec)
    other = save({"x": np.zeros(1)}, metadata={"stillhouse.checkpoint": json.dumps({"format": 1})})
    checkpoint = upload(fleet.desk.db, fleet.desk.stores, other, kind="state", job_id=job_id)
    with fleet.desk.db.writing() as session:
        session.execute(insert(JobEventRow).values(
            job_id=job_id, seq=2, attempt=0, at=now(), type="of_then", body={"type": "of_then", "what": 1}
        ))
    fleet.desk.set(job_id, checkpoint_artifact_id=checkpoint.id, last_seq=2)
    fleet.start_worker(STILLHOUSE_ENGINE="worker.engine.pipeline").wait_until_ready()
    recovery.begins()
    fleet.ring(job_id)
    recovery.ends(lambda: fleet.desk.row(job_id).status in {Status.SUCCEEDED, Status.FAILED})
    assert fleet.desk.row(job_id).error is None
    events = [line.event for line in fleet.desk.events(job_id)]
    assert isinstance(events[1], UnknownEvent)
    assert [event.level for event in events if isinstance(event, Noted) and event.code == "checkpoint_unusable"] == [
        "warning"
    ]
