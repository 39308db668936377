"""A full disk: where inputs are staged, where checkpoints and results are kept, where the trainer writes."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stillhouse.contract.status import Status
from tests.fixtures.fleet import LEASE_SECONDS, Fleet
from tests.fixtures.recovery import Recovery
from tests.fixtures.waiting import wait_until

fault = pytest.mark.fault


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    folder: Path

    def fill(self) -> None:
        """Take all the room that is left."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def clear(self) -> None:
        """Give it back."""
        (self.folder / "filler").unlink()


@pytest.fixture
def mounted(folder: Path) -> Iterator[Callable[[str], Disk]]:
    """Mounts a small disk on a folder of the fleet. To be asked for before the fleet, which it outlives."""
    with ExitStack() as stack:

        def mount(name: str) -> Disk:
            where = folder / name
            where.mkdir(exist_ok=True)
            done = subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=4m", "none", where], check=False)
            if done.returncode:
                pytest.skip("a small disk cannot be mounted here; it takes root")
            stack.callback(lambda: subprocess.run(["/bin/umount", "--lazy", where], check=True))
            return Disk(where)

        yield mount


@fault("no room where inputs are staged", sees="`running` in phase `staging` until there is room; no loss")
def test_no_room_to_stage(mounted: Callable[[str], Disk], fleet: Fleet, recovery: Recovery) -> None:
    disk = mounted("cache")
    disk.fill()
    fleet.start_worker()
    job_id = fleet.submit(steps=40, wait=0.05)
    wait_until(lambda: fleet.desk.row(job_id).started_at is not None)
    since = fleet.desk.row(job_id).started_at or datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > since + timedelta(seconds=LEASE_SECONDS))
    row = fleet.desk.row(job_id)
    assert (row.status, row.phase, row.attempt) == (Status.RUNNING, "staging", 1)
    disk.clear()
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id, attempt=1))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert fleet.desk.row(job_id).losses == 0


@fault("no room where checkpoints and results are kept", sees="`running` until there is room, then all of it; no loss")
def test_no_room_to_keep_anything(mounted: Callable[[str], Disk], fleet: Fleet, recovery: Recovery) -> None:
    disk = mounted("blobs")
    (disk.folder / "incoming").mkdir()
    worker = fleet.start_worker(STILLHOUSE_MAX_DATABASE_MODEL_BYTES="0")
    job_id = fleet.submit(steps=40, wait=0.05, every=10)
    fleet.wait_for_step(job_id, 2)
    disk.fill()
    wait_until(worker.has_results)
    assert fleet.desk.row(job_id).status == Status.RUNNING
    disk.clear()
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    assert (fleet.desk.row(job_id).attempt, fleet.desk.row(job_id).losses) == (1, 0)


@fault("no room where the trainer writes", sees="`failed` with `storage_full`, blame `infrastructure`; others go on")
def test_no_room_for_the_trainer(mounted: Callable[[str], Disk], fleet: Fleet, recovery: Recovery) -> None:
    mounted("scratch-0")
    fleet.start_worker().wait_until_ready()
    job_id = fleet.submit(die="disk", die_at=3)
    recovery.begins()
    following = fleet.submit(steps=2)
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.FAILED)
    error = fleet.desk.row(job_id).error
    assert error is not None
    assert (error["code"], error["blame"], error["retryable"]) == ("storage_full", "infrastructure", True)
    fleet.wait_for(following, Status.SUCCEEDED)
