"""A trainer that hostile bytes have taken over cannot make its supervisor run, publish or believe anything."""

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from app.artifacts import service as artifacts
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk
from worker import child
from worker.supervisor import serve
from worker.workshop import Workshop


@pytest.fixture
def hostile_shop(shop: Workshop) -> Workshop:
    """A worker whose engine is hostile, and reaches what it likes: this is what holds where there is no sandbox."""
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)
    settings = shop.settings.model_copy(update={"engine": "tests.fixtures.hostile_engine", "sandbox": "off"})
    return replace(shop, settings=settings)


@pytest.mark.parametrize(
    "attack", ["bomb", "bomb_as_event", "garbage", "endless", "other_json", "huge_number", "huge_step"]
)
def test_what_is_no_event_ends_the_job_and_runs_nothing(
    hostile_shop: Workshop, office: Desk, tmp_path: Path, attack: str
) -> None:
    made = tmp_path / "made by a pickle"
    job_id = office.submit(labels={"attack": f"{attack}:{made}"})
    serve(hostile_shop, "cpu")
    row = office.row(job_id)
    assert not made.exists()
    assert row.error is not None
    assert (row.status, row.error["code"], row.attempt) == (Status.FAILED, "trainer_crashed", 1)
    assert hostile_shop.devices.num_free == 1


def test_who_asks_and_does_not_read_the_answers_blocks_nobody(
    hostile_shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_SENDING_SECONDS", 0.2)
    job_id = office.submit(labels={"attack": "deaf"})
    serve(hostile_shop, "cpu")
    row = office.row(job_id)
    assert row.error is not None
    assert (row.status, row.error["code"], row.attempt) == (Status.FAILED, "trainer_crashed", 1)
    assert "does not read the answer" in row.error["message"]


def test_only_plain_files_of_the_scratch_folder_become_soft_labels(hostile_shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"attack": "shard:/etc/passwd"})
    serve(hostile_shop, "cpu")
    row = office.row(job_id)
    assert row.error is not None
    assert (row.status, row.error["code"]) == (Status.FAILED, "trainer_crashed")
    with office.db.reading() as session:
        assert {artifact.kind for artifact in artifacts.page(session, "ann").rows} == {"data"}


def test_half_a_message_blocks_nobody(hostile_shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"attack": "half"})
    thread = threading.Thread(target=serve, args=(hostile_shop, "cpu"))
    thread.start()
    hostile_shop.draining.set()
    thread.join(20)
    assert not thread.is_alive()
    assert office.row(job_id).status == Status.QUEUED


@pytest.mark.parametrize("attack", ["symlink", "symlink:/etc/passwd", "hardlink", "fifo", "folder", "empty", "missing"])
def test_only_plain_files_of_the_scratch_folder_become_results(
    hostile_shop: Workshop, office: Desk, attack: str
) -> None:
    job_id = office.submit(labels={"attack": attack})
    serve(hostile_shop, "cpu")
    row = office.row(job_id)
    assert row.error is not None
    assert (row.status, row.error["code"]) == (Status.FAILED, "trainer_crashed")
    with office.db.reading() as session:
        assert {artifact.kind for artifact in artifacts.page(session, "ann").rows} == {"data"}


@pytest.mark.parametrize(("queue", "attack"), [("cpu", "planned"), ("plans", "finished")])
def test_a_job_does_not_end_as_a_plan_nor_a_plan_as_a_job(
    hostile_shop: Workshop, office: Desk, queue: str, attack: str
) -> None:
    job_id = office.submit(queue=queue, labels={"attack": attack})
    serve(hostile_shop, queue)
    row = office.row(job_id)
    assert row.error is not None
    assert (row.status, row.error["code"], row.plan, row.report) == (Status.FAILED, "trainer_crashed", None, None)
    with office.db.reading() as session:
        assert {artifact.kind for artifact in artifacts.page(session, "ann").rows} == {"data"}


def test_who_stops_unasked_is_lost_not_cancelled(hostile_shop: Workshop, office: Desk) -> None:
    job_id = office.submit(labels={"attack": "unasked"})
    serve(hostile_shop, "cpu")
    row = office.row(job_id)
    assert row.error is not None
    assert (row.status, row.error["code"], row.attempt) == (Status.FAILED, "worker_lost", 3)
