"""One job's life, with real trainers: each way to end, and what is left behind."""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import pytest

from app.artifacts import service as artifacts
from app.jobs import queries, service
from app.jobs.models import JobRow
from app.kit.clock import now
from stillhouse.contract.events import CheckpointSaved, Finished, Measured, PhaseStarted, StatusChanged
from stillhouse.contract.status import Phase, Status
from tests.fixtures import noop_engine
from tests.fixtures.jobs import Desk
from tests.fixtures.waiting import wait_until
from worker.scratch import HEAD_BYTES, TAIL_BYTES
from worker.slots import Slots
from worker.supervisor import serve, supervise
from worker.workshop import Workshop

LONG = {"noop.steps": "2000", "noop.wait": "0.02"}


@contextmanager
def serving(shop: Workshop, rung: str = "cpu") -> Iterator[threading.Thread]:
    """The worker answers one ring, on a thread as in Celery's pool."""
    thread = threading.Thread(target=serve, args=(shop, rung))
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def result(office: Desk, job_id: str) -> dict[str, Any]:
    with office.db.reading() as session:
        _, bundle = session.execute(queries.files(), {"job_id": job_id}).one()
        content: dict[str, Any] = json.loads(b"".join(artifacts.content(office.stores, bundle)))
        return content


def log_of(office: Desk, job_id: str) -> str:
    with office.db.reading() as session:
        return "\n".join(attempt.log for attempt in service.attempts(session, job_id))


def hurry(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Have the clock run so many times as fast by which supervisors count run time and silence."""
    began = monotonic()
    monkeypatch.setattr("worker.limits.monotonic", lambda: monotonic() + (monotonic() - began) * times)


def error_of(row: JobRow) -> dict[str, Any]:
    assert row.error is not None
    return row.error


def seen_by(office: Desk, plan_id: str) -> dict[str, Any]:
    """What the trainer of a plan saw."""
    plan = office.row(plan_id).plan
    assert plan is not None
    found: dict[str, Any] = plan["notes"][0]["data"]
    return found


def steps(office: Desk, job_id: str) -> int:
    return office.row(job_id).step or 0


def trainers(shop: Workshop) -> set[str]:
    """Processes that print into a log of this shop: trainers, and all that they have started."""
    return {path.name for path in Path("/proc").iterdir() if path.name.isdigit() and _prints_into(shop, path)}


def _prints_into(shop: Workshop, process: Path) -> bool:
    try:
        return (process / "fd" / "1").readlink().is_relative_to(shop.settings.scratch_folder)
    except OSError:  # it has ended
        return False


def test_a_job_succeeds_with_its_result_in_the_database(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "12"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses, row.percent) == (Status.SUCCEEDED, 1, 0, 100.0)
    assert result(office, job_id)["state"] == noop_engine.count(12)
    events = [line.event for line in office.events(job_id)]
    assert office.statuses(job_id) == ["queued", "running", "succeeded"]
    assert PhaseStarted(phase=Phase.DISTILLING, total_steps=12) in events
    assert [event.step for event in events if isinstance(event, Measured)] == list(range(1, 13))
    assert isinstance(events[-2], Finished)
    assert "counting from 0 to 12 on cpu" in log_of(office, job_id)


@pytest.mark.parametrize(("limit", "store"), [(10_000_000, "database"), (10, "files")])
def test_big_results_go_to_the_blob_store(shop: Workshop, office: Desk, limit: int, store: str) -> None:
    job_id = office.submit()
    serve(replace(shop, settings=shop.settings.model_copy(update={"max_database_model_bytes": limit})), "cpu")
    with office.db.reading() as session:
        _, bundle = session.execute(queries.files(), {"job_id": job_id}).one()
    assert (bundle.blob.store, bundle.kind, bundle.format) == (store, "model", "zip")


def test_nothing_is_left_of_an_attempt(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "12"})
    serve(shop, "cpu")
    assert list(shop.settings.scratch_folder.iterdir()) == []
    assert office.row(job_id).checkpoint_artifact_id is None
    with office.db.reading() as session:
        kinds = {row.kind for row in artifacts.page(session, "ann").rows}
    assert kinds == {"data", "model"}
    assert shop.devices.num_free == 1


def test_the_trainer_sees_no_secret_and_computes_politely(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_BOOTSTRAP_KEY", "sk_secret")
    job_id = office.submit()
    serve(shop, "cpu")
    environment = result(office, job_id)["environment"]
    assert not [name for name in environment if name.startswith("STILLHOUSE_")]
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["OMP_NUM_THREADS"] == str(shop.num_threads)


def test_one_ring_runs_every_queued_job(shop: Workshop, office: Desk) -> None:
    jobs = [office.submit(labels={"noop.steps": "2"}) for _ in range(3)]
    serve(shop, "cpu")
    assert {office.row(job_id).status for job_id in jobs} == {Status.SUCCEEDED}


def test_a_ring_that_finds_all_slots_taken_is_not_lost(shop: Workshop, office: Desk) -> None:
    first = office.submit(labels={"noop.steps": "50"})
    with serving(shop):
        wait_until(lambda: steps(office, first) > 0)
        second = office.submit(labels={"noop.steps": "2"})
        serve(shop, "cpu")  # in vain
        assert office.row(second).status == Status.QUEUED
    assert office.row(second).status == Status.SUCCEEDED, "whoever held the slot looked again"


def test_a_wide_job_takes_all_its_slots_at_once(shop: Workshop, office: Desk) -> None:
    shop = replace(shop, devices=Slots(3))
    wide = office.submit(devices=2, labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, wide) > 0)
        assert shop.devices.num_free == 1
        another = office.submit(devices=2, labels={"noop.steps": "2"})
        serve(shop, "cpu")  # one slot is free, and two are wanted
        assert office.row(another).status == Status.QUEUED
        office.cancel(wide)
    assert "on cpu,cpu" in log_of(office, wide)
    assert office.row(another).status == Status.SUCCEEDED
    assert shop.devices.num_free == 3


def test_nothing_narrower_is_taken_while_a_wide_job_is_next(shop: Workshop, office: Desk) -> None:
    shop = replace(shop, devices=Slots(2))
    running = office.submit(labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, running) > 0)
        wide = office.submit(devices=2, labels={"noop.steps": "2"})
        narrow = office.submit(labels={"noop.steps": "2"})
        urgent = office.submit(labels={"noop.steps": "2"}, priority=1)
        serve(shop, "cpu")
        assert [office.row(job_id).status for job_id in (urgent, wide, narrow)] == ["succeeded", "queued", "queued"]
        office.cancel(running)
    assert [office.row(job_id).status for job_id in (wide, narrow)] == ["succeeded", "succeeded"]
    started = {job_id: office.row(job_id).started_at for job_id in (wide, narrow)}
    assert sorted(started, key=lambda job_id: str(started[job_id])) == [wide, narrow]


def test_a_job_wider_than_the_worker_is_left_to_others(shop: Workshop, office: Desk) -> None:
    wide, narrow = office.submit(devices=2), office.submit(labels={"noop.steps": "2"})
    serve(shop, "cpu")
    assert [office.row(job_id).status for job_id in (wide, narrow)] == ["queued", "succeeded"]


def test_the_slots_of_a_wide_job_are_rung_for(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = replace(shop, devices=Slots(2))
    wide = office.submit(devices=2, labels=LONG)
    heard: list[str] = []
    monkeypatch.setattr("app.queue.ring", lambda _url, _name, job_id: heard.append(job_id))
    with serving(shop):
        wait_until(lambda: steps(office, wide) > 0)
        narrow = [office.submit(labels={"noop.steps": "2"}) for _ in range(3)]
        office.cancel(wide)
    assert heard == narrow[:1], "this thread fills one of the two slots; whoever hears the ring fills the other"


def test_a_killed_trainer_is_resumed_from_its_last_checkpoint(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "20", "noop.every": "5", "noop.die": "kill", "noop.die_at": "13"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 2, 1)
    assert result(office, job_id)["runs"] == [0, 10]
    assert result(office, job_id)["state"] == noop_engine.count(20)
    assert "SIGKILL" in next(
        event.reason for line in office.events(job_id) if isinstance(event := line.event, StatusChanged)
        and line.attempt == 1 and event.status == "queued"
    )
    assert "dying: kill" in log_of(office, job_id)


def test_a_trainer_that_always_dies_fails_its_job(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.die": "exit", "noop.die_at": "3", "noop.deaths": "9"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.FAILED, 3, 3)
    assert error_of(row)["code"] == "worker_lost"
    assert "exit code 3" in error_of(row)["message"]


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_job(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.die": "grandchild", "noop.die_at": "3"})
    serve(shop, "cpu")
    assert office.row(job_id).status == Status.SUCCEEDED
    wait_until(lambda: trainers(shop) == set())


@pytest.mark.parametrize(
    ("how", "code", "blame", "step"),
    [
        ("user", "diverged", "user", 7),
        ("bug", "internal_error", "system", None),
        ("memory", "out_of_memory", "user", None),
        ("device_memory", "out_of_device_memory", "user", None),
    ],
)
def test_an_exception_becomes_the_error_of_the_job(
    shop: Workshop, office: Desk, how: str, code: str, blame: str, step: int | None
) -> None:
    job_id = office.submit(labels={"noop.die": how, "noop.die_at": "3"})
    serve(shop, "cpu")
    row = office.row(job_id)
    error = error_of(row)
    assert (row.status, error["code"], error["blame"], error["step"]) == (Status.FAILED, code, blame, step)
    assert "Traceback" in log_of(office, job_id)


@pytest.mark.parametrize(("num_kills", "code"), [(7, "worker_lost"), (8, "out_of_memory")])
def test_a_trainer_that_the_kernel_ends_for_want_of_memory_is_told_as_such(
    shop: Workshop, office: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_kills: int, code: str
) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 7\n")
    monkeypatch.setattr("worker.kills.VMSTAT", vmstat)
    shop = replace(shop, settings=shop.settings.model_copy(update={"max_losses": 1}))
    job_id = office.submit(labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        vmstat.write_text(f"nr_free_pages 5\noom_kill {num_kills}\n")
        for pid in trainers(shop):
            os.kill(int(pid), signal.SIGKILL)
    assert error_of(office.row(job_id))["code"] == code


def test_cancelling_stops_the_trainer(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        assert office.cancel(job_id) == Status.CANCELLING
    assert office.statuses(job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_deaf_trainer_is_killed_after_the_grace(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.deaf": "yes"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        assert len(trainers(shop)) == 1
        office.cancel(job_id)
    assert office.row(job_id).status == Status.CANCELLED
    assert trainers(shop) == set()


def test_draining_stores_a_checkpoint_and_queues_the_job(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "60", "noop.wait": "0.05", "noop.every": "1000"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        shop.draining.set()
    row = office.row(job_id)
    assert (row.status, row.losses) == (Status.QUEUED, 0)
    assert row.checkpoint_artifact_id is not None
    shop.draining.clear()
    serve(shop, "cpu")
    runs = result(office, job_id)["runs"]
    assert runs[0] == 0
    assert runs[1] > 3
    assert result(office, job_id)["state"] == noop_engine.count(60)


def test_pausing_stores_a_checkpoint_and_gives_the_slot_back(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "60", "noop.wait": "0.05", "noop.every": "1000"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        other = office.submit(labels={"noop.steps": "2"})
        assert office.pause(job_id) == Status.PAUSING
    row = office.row(job_id)
    assert (row.status, row.losses, shop.devices.num_free) == (Status.PAUSED, 0, 1)
    assert row.checkpoint_artifact_id is not None
    assert office.row(other).status == Status.SUCCEEDED, "the slot went to whoever waited"
    assert office.resume(job_id) == Status.QUEUED
    serve(shop, "cpu")
    runs = result(office, job_id)["runs"]
    assert runs[0] == 0
    assert runs[1] > 3
    assert result(office, job_id)["state"] == noop_engine.count(60)


def test_pausing_while_inputs_are_staged_starts_no_trainer(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels=LONG)
    claim = office.claim()
    office.pause(job_id)
    supervise(shop, claim, "cpu")
    assert office.statuses(job_id) == ["queued", "running", "pausing", "paused"]


def test_a_cancelled_job_is_finished_with_the_best_so_far(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.finish_wait": "3"})  # longer than the grace
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        office.cancel(job_id, keep="best")
    found, row = result(office, job_id), office.row(job_id)
    assert 0 < found["steps"] < 2000
    assert found["state"] == noop_engine.count(found["steps"])
    assert (row.status, row.losses) == (Status.CANCELLED, 0)
    assert row.report is not None
    assert row.report["interrupted"]["step"] == found["steps"]


@pytest.mark.parametrize("how", ["paused", "drained"])
def test_what_waits_is_claimed_once_more_to_be_finished(shop: Workshop, office: Desk, how: str) -> None:
    job_id = office.submit(labels={**LONG, "noop.every": "1000"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        office.pause(job_id) if how == "paused" else shop.draining.set()
    shop.draining.clear()
    reached = steps(office, job_id)
    office.cancel(job_id, keep="best")
    serve(shop, "cpu")
    found = result(office, job_id)
    assert (office.row(job_id).status, found["runs"][0], len(found["runs"])) == (Status.CANCELLED, 0, 2)
    assert reached - 1 <= found["runs"][1] <= found["steps"] < 2000


def test_a_trainer_that_dies_while_it_finishes_is_tried_again(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.finish_deaths": "1"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        office.cancel(job_id, keep="best")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.CANCELLED, 2, 1)
    assert len(result(office, job_id)["runs"]) == 2


def test_nothing_is_kept_of_a_job_that_has_not_begun(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.patient": "yes"})
    with serving(shop):
        wait_until(lambda: len(trainers(shop)) == 1)
        office.cancel(job_id, keep="best")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.report) == (Status.CANCELLED, 1, None)
    with office.db.reading() as session:
        assert session.execute(queries.files(), {"job_id": job_id}).all() == []


def test_who_no_longer_wants_the_best_does_not_wait_for_it(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.deaf": "yes"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        office.cancel(job_id, keep="best")
        office.cancel(job_id)
    assert office.row(job_id).status == Status.CANCELLED
    assert trainers(shop) == set()


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_job_that_has_run_for_as_long_as_it_may_fails(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch, is_deaf: bool
) -> None:
    labels = {**LONG, "noop.every": "1000"} | ({"noop.deaf": "yes"} if is_deaf else {})
    job_id = office.submit(labels=labels, max_runtime=600)
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        hurry(monkeypatch, 600)
    row = office.row(job_id)
    error = error_of(row)
    assert (row.status, row.attempt, row.losses) == (Status.FAILED, 1, 0)
    assert (error["code"], error["blame"], error["param"]) == ("max_runtime_exceeded", "user", "/max_runtime")
    saved = [line.event.step for line in office.events(job_id) if isinstance(line.event, CheckpointSaved)]
    assert (len(saved), trainers(shop)) == (1 if is_deaf else 2, set()), "it was asked, and killed when it did not hear"


def test_the_best_so_far_is_kept_of_a_job_that_has_run_for_as_long_as_it_may(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {**LONG, "noop.every": "1000"}
    job_id = office.submit(labels=labels, max_runtime=600, on_max_runtime="keep_best")
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        hurry(monkeypatch, 600)
    found, row = result(office, job_id), office.row(job_id)
    assert 3 < found["steps"] < 2000
    assert (row.status, row.losses) == (Status.SUCCEEDED, 0)
    assert row.report is not None
    assert row.report["interrupted"]["step"] == found["steps"]
    with office.db.reading() as session:
        (attempt,) = service.attempts(session, job_id)
    assert "for as long as it may" in str(attempt.reason)


def test_a_job_fails_whose_time_is_over_before_there_is_anything_to_keep(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {**LONG, "noop.patient": "yes"}
    job_id = office.submit(labels=labels, max_runtime=600, on_max_runtime="keep_best")
    with serving(shop):
        wait_until(lambda: len(trainers(shop)) == 1)
        hurry(monkeypatch, 600)
    error = error_of(office.row(job_id))
    assert (error["code"], "no student to keep yet" in error["message"]) == ("max_runtime_exceeded", True)


@pytest.mark.parametrize(
    ("then", "keep", "status", "num_runs"),
    [
        ("fail", None, Status.FAILED, 1),
        ("keep_best", None, Status.SUCCEEDED, 2),
        ("fail", "best", Status.CANCELLED, 2),
    ],
)
def test_the_time_of_earlier_attempts_counts(
    shop: Workshop, office: Desk, then: str, keep: Literal["best"] | None, status: Status, num_runs: int
) -> None:
    job_id = office.submit(labels={**LONG, "noop.every": "1000"}, max_runtime=600, on_max_runtime=then)
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 3)
        shop.draining.set()
    shop.draining.clear()
    office.date_attempt(job_id, 1, datetime.now(UTC) - timedelta(hours=1))
    if keep:  # what the user cancelled is exported, whatever its limit
        office.cancel(job_id, keep=keep)
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, log_of(office, job_id).count("counting from")) == (status, 2, num_runs)


def test_a_job_whose_trainers_fall_silent_too_often_fails(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = replace(shop, settings=shop.settings.model_copy(update={"max_losses": 1}))
    job_id = office.submit(labels={"noop.die": "hang", "noop.die_at": "7"})
    with serving(shop):
        wait_until(lambda: steps(office, job_id) == 7)
        hurry(monkeypatch, 3600)
    error = error_of(office.row(job_id))
    assert (error["code"], error["blame"], error["retryable"]) == ("trainer_stalled", "infrastructure", True)


def test_a_trainer_that_speaks_may_go_on_for_longer_than_it_may_be_silent(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = office.submit(labels={"noop.steps": "20", "noop.wait": "0.05"})
    # As much time as it may be silent passes between two steps, and none where nothing is told.
    limit = shop.settings.stall_limit_seconds
    monkeypatch.setattr("worker.limits.monotonic", lambda: limit * steps(office, job_id))
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt) == (Status.SUCCEEDED, 1)


def test_draining_while_inputs_are_staged_starts_no_trainer(shop: Workshop, office: Desk) -> None:
    job_id = office.submit()
    claim = office.claim()
    shop.draining.set()
    supervise(shop, claim, "cpu")
    row = office.row(job_id)
    assert (row.status, row.losses) == (Status.QUEUED, 0)
    assert log_of(office, job_id) == ""


def test_a_draining_worker_claims_nothing(shop: Workshop, office: Desk) -> None:
    job_id = office.submit()
    shop.draining.set()
    serve(shop, "cpu")
    assert office.row(job_id).status == Status.QUEUED


def test_a_job_that_was_taken_away_is_left_alone_and_its_trainer_killed(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, job_id) > 0)
        office.set(job_id, attempt=2, lease_worker="another", lease_until=now(60))
        last_seq = office.row(job_id).last_seq
    row = office.row(job_id)
    assert (row.status, row.attempt, row.lease_worker, row.last_seq) == (Status.RUNNING, 2, "another", last_seq)
    assert trainers(shop) == set()
    assert shop.devices.num_free == 1


def test_a_silent_trainer_is_killed_when_its_job_was_taken_away(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "2", "noop.wait": "600"})
    with serving(shop):
        wait_until(lambda: office.row(job_id).checkpoint_artifact_id is not None)  # its last event
        office.set(job_id, attempt=2, lease_worker="another", lease_until=now(60))
    assert trainers(shop) == set()


def test_a_lease_outlives_long_silence(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "2", "noop.wait": "2.5"})
    with serving(shop):
        wait_until(lambda: office.row(job_id).lease_until is not None)
        first = office.row(job_id).lease_until
        wait_until(lambda: office.row(job_id).lease_until != first)
    assert (office.row(job_id).status, office.row(job_id).attempt) == (Status.SUCCEEDED, 1)


def test_checkpoints_are_stored_before_they_are_told(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={**LONG, "noop.every": "1000"})
    with serving(shop):
        wait_until(lambda: any(isinstance(line.event, CheckpointSaved) for line in office.events(job_id)))
        checkpoint = office.row(job_id).checkpoint_artifact_id
        assert checkpoint is not None
        with office.db.reading() as session:
            row = artifacts.find(session, "ann", checkpoint)
        assert json.loads(b"".join(artifacts.content(office.stores, row)))[0] == 0
        assert row.kind == "state"
        office.cancel(job_id)


@pytest.mark.embedded
def test_an_input_that_the_store_has_lost_fails_the_job(shop: Workshop, office: Desk, tmp_path: Path) -> None:
    job_id = office.submit()
    for blob in (tmp_path / "blobs").rglob("blob_*"):
        blob.unlink()
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, error_of(row)["code"], error_of(row)["blame"]) == (
        Status.FAILED, "staging_failed", "infrastructure"
    )


@pytest.mark.embedded
def test_an_input_that_the_store_has_changed_fails_the_job(shop: Workshop, office: Desk, tmp_path: Path) -> None:
    job_id = office.submit()
    for blob in (tmp_path / "blobs").rglob("blob_*"):
        blob.write_bytes(b"bytez")
    serve(shop, "cpu")
    assert error_of(office.row(job_id))["code"] == "staging_failed"


def test_plans_wait_for_nothing_but_their_own_slot(shop: Workshop, office: Desk) -> None:
    training = office.submit(labels=LONG)
    with serving(shop):
        wait_until(lambda: steps(office, training) > 0)
        assert shop.devices.num_free == 0
        plan = office.submit(queue="plans", labels={"noop.steps": "2"})
        serve(shop, "cpu")
        assert office.row(plan).status == Status.QUEUED, "a training slot must never take a plan"
        serve(shop, "plans")
        assert office.row(plan).status == Status.SUCCEEDED
        assert office.row(training).status == Status.RUNNING
        office.cancel(training)


def test_the_plan_slot_takes_no_training_job(shop: Workshop, office: Desk) -> None:
    job_id = office.submit()
    serve(shop, "plans")
    assert office.row(job_id).status == Status.QUEUED


def test_a_plan_runs_on_few_threads_and_is_the_first_to_go(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans")
    serve(shop, "plans")
    seen = seen_by(office, plan_id)
    assert (seen["device"], seen["oom"].strip()) == ("cpu", "1000")
    assert seen["environment"]["OMP_NUM_THREADS"] == str(shop.num_plan_threads)
    assert shop.num_plan_threads <= max(1, shop.num_threads / 2)
    assert "planning on cpu" in log_of(office, plan_id)
    assert office.statuses(plan_id) == ["queued", "running", "succeeded"]
    assert (list(shop.settings.scratch_folder.iterdir()), shop.plans.num_free) == ([], 1)


def test_a_plan_for_a_gpu_is_made_where_one_is(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans-gpu")
    serve(shop, "plans")
    serve(shop, "plans-gpu")
    assert office.row(plan_id).status == Status.QUEUED, "this worker has no GPU"
    shop = replace(shop, settings=shop.settings.model_copy(update={"queues": ["cpu", "gpu"]}), devices=Slots(2))
    assert shop.devices.take() == (0,)
    serve(shop, "plans")
    assert seen_by(office, plan_id)["device"] == "cuda:0"


def test_a_killed_plan_is_tried_again(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans", labels={"noop.steps": "30", "noop.wait": "0.1"})
    with serving(shop, "plans"):
        wait_until(lambda: len(trainers(shop)) == 1)
        (first,) = trainers(shop)
        os.kill(int(first), signal.SIGKILL)
    row = office.row(plan_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 2, 1)
    assert row.plan is not None


def test_a_plan_that_always_dies_fails(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans", labels={"noop.die": "exit", "noop.die_at": "1"})
    serve(shop, "plans")
    row = office.row(plan_id)
    assert (row.status, row.attempt, error_of(row)["code"]) == (Status.FAILED, 3, "worker_lost")


def test_what_preflight_finds_is_the_error_of_the_plan(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans", labels={"noop.die": "user", "noop.die_at": "0"})
    serve(shop, "plans")
    row = office.row(plan_id)
    assert (row.status, error_of(row)["code"], row.attempt, row.plan) == (Status.FAILED, "diverged", 1, None)


def test_draining_gives_a_plan_to_another_worker(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans", labels={"noop.steps": "60", "noop.wait": "0.05"})
    with serving(shop, "plans"):
        wait_until(lambda: len(trainers(shop)) == 1)
        shop.draining.set()
    row = office.row(plan_id)
    assert (row.status, row.losses, row.checkpoint_artifact_id) == (Status.QUEUED, 0, None)
    shop.draining.clear()
    serve(shop, "plans")
    assert office.row(plan_id).status == Status.SUCCEEDED


def test_cancelling_stops_a_plan(shop: Workshop, office: Desk) -> None:
    plan_id = office.submit(queue="plans", labels=LONG)
    with serving(shop, "plans"):
        wait_until(lambda: len(trainers(shop)) == 1)
        with office.db.writing() as session:
            assert service.cancel(session, "ann", plan_id, "plan").status == Status.CANCELLING
    assert office.row(plan_id).status == Status.CANCELLED
    assert trainers(shop) == set()


def test_two_slots_run_two_jobs_side_by_side(shop: Workshop, office: Desk) -> None:
    shop = replace(shop, devices=Slots(2))
    jobs = [office.submit(labels=LONG) for _ in range(2)]
    with serving(shop), serving(shop):
        wait_until(lambda: all(steps(office, job_id) > 0 for job_id in jobs))
        for job_id in jobs:
            office.cancel(job_id)


def test_a_long_log_keeps_its_head_and_its_tail(shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"noop.steps": "2", "noop.print": str(2 * (HEAD_BYTES + TAIL_BYTES))})
    serve(shop, "cpu")
    with office.db.reading() as session:
        (attempt,) = service.attempts(session, job_id)
    assert attempt.log_truncated
    assert attempt.log.split("\n")[1].startswith("counting from 0")
    assert attempt.log.endswith("done counting\n")
    assert len(attempt.log) < HEAD_BYTES + TAIL_BYTES + 100


@pytest.mark.parametrize("rename", [lambda path: path, Path.absolute])
def test_a_relative_scratch_folder_serves(shop: Workshop, office: Desk, rename: Callable[[Path], Path]) -> None:
    folder = rename(Path(os.path.relpath(shop.settings.scratch_folder)))
    job_id = office.submit()
    serve(replace(shop, settings=shop.settings.model_copy(update={"scratch_folder": folder})), "cpu")
    assert office.row(job_id).status == Status.SUCCEEDED


@pytest.fixture(autouse=True)
def _quiet_doorbell() -> None:
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)
