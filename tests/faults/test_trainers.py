"""Trainers that run out of memory or time, talk too much or no more, or leave somebody behind."""

import sqlite3
from contextlib import closing

import pytest

from app.jobs import service
from stillhouse.contract.events import Measured
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet
from tests.fixtures.recovery import Recovery
from tests.fixtures.waiting import wait_until

NUM_EVENTS = 100_000

fault = pytest.mark.fault


@fault("the host's memory ends in a trainer", sees="`failed` with `out_of_memory` and advice; the queue goes on")
def test_a_trainer_runs_out_of_memory(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_worker().wait_until_ready()
    job_id = fleet.submit(die="limit", die_at=3)
    recovery.begins()
    following = fleet.submit(steps=2)
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.FAILED)
    row = fleet.desk.row(job_id)
    assert row.error is not None
    assert (row.error["code"], row.attempt) == ("out_of_memory", 1)
    assert "training.batch_size" in row.error["message"]
    fleet.wait_for(following, Status.SUCCEEDED)


@fault(
    "SIGKILL of a trainer whose forked grandchild keeps its pipe open",
    sees="`attempt` 2, `losses` 1; the grandchild is ended with it",
)
def test_a_grandchild_keeps_the_pipe_open(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    worker.wait_until_ready()
    job_id = fleet.submit(steps=40, wait=0.05, die="grandchild", die_at=5)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert (fleet.desk.row(job_id).attempt, fleet.desk.row(job_id).losses) == (2, 1)
    wait_until(lambda: worker.trainers() == [])


@fault(
    "a storm of 100,000 events while another writer holds SQLite's lock",
    sees="the newest progress when the lock is gone, and metrics at fewer steps; the trainer never waits",
)
@pytest.mark.slow
def test_a_storm_of_events(fleet: Fleet, recovery: Recovery) -> None:
    worker = fleet.start_worker()
    worker.wait_until_ready()
    job_id = fleet.submit(steps=3, storm=NUM_EVENTS, every=1000)
    wait_until(lambda: fleet.desk.row(job_id).status == Status.RUNNING)
    with closing(sqlite3.connect(fleet.folder / "stillhouse.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_until(lambda: any(path.stat().st_size for path in worker.scratch.glob("*/student.zip")))
        other.execute("ROLLBACK")
    recovery.begins()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.SUCCEEDED)
    row = fleet.desk.row(job_id)
    assert (row.attempt, row.last_seq < NUM_EVENTS // 10) == (1, True)
    measured = [line.event.values for line in fleet.desk.events(job_id) if isinstance(line.event, Measured)]
    winds = [values["wind"] for values in measured if "wind" in values]
    assert winds[-1] == NUM_EVENTS // 2, "the newest value is kept"


@fault(
    "a trainer that hangs: silent for longer than the stall limit (here 3 s)",
    sees="`attempt` 2, `losses` 1; goes on at the last checkpoint; the first attempt's log tells where it hung",
)
def test_a_trainer_hangs(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_worker(STILLHOUSE_STALL_LIMIT_SECONDS="3").wait_until_ready()
    job_id = fleet.submit(steps=20, die="hang", die_at=7)
    fleet.wait_for_step(job_id, 7)
    recovery.begins()
    recovery.ends(lambda: fleet.runs_again(job_id))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    assert (fleet.desk.row(job_id).attempt, fleet.desk.row(job_id).losses) == (2, 1)
    assert fleet.result(job_id)["runs"] == [0, 5]
    with fleet.desk.db.reading() as session:
        first, _ = service.attempts(session, job_id)
    assert (first.outcome, first.reason) == ("lost", "the trainer said nothing for 3 s")
    assert "in _die" in first.log


@fault(
    "SIGKILL of the worker of a job that has a `max_runtime` (here 4 s)",
    sees="`attempt` 2 for as long as the first one left of that; then `failed` with `max_runtime_exceeded` and advice",
)
def test_a_job_runs_out_of_time(fleet: Fleet, recovery: Recovery) -> None:
    fleet.start_pair()
    job_id = fleet.desk.submit(labels={"noop.steps": "100000", "noop.wait": "0.05"}, max_runtime=4)
    fleet.ring(job_id)
    worker = fleet.worker_of(job_id)
    recovery.begins()
    worker.kill()
    recovery.ends(lambda: fleet.desk.row(job_id).status == Status.FAILED)
    row = fleet.desk.row(job_id)
    assert row.error is not None
    assert (row.error["code"], row.attempt, row.losses) == ("max_runtime_exceeded", 2, 1)
    assert "raise it, or train for fewer epochs" in row.error["message"]
