"""Databases and disks fail for a while; a job that is fine does not."""

import logging
from collections.abc import Callable

import pytest
from sqlalchemy.exc import OperationalError

from app.artifacts import service as artifacts
from app.artifacts.service import store_file
from app.jobs import life
from app.kit.clock import now
from app.storage.base import RefusedError
from stillhouse.contract.events import Measured, Noted
from stillhouse.contract.failures import StorageFullError, UnavailableError
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk
from tests.fixtures.waiting import wait_until
from worker import results, supervisor
from worker.supervisor import serve
from worker.workshop import Workshop

AWAY = OperationalError("SELECT", {}, OSError("the database is away"))


class Flaky:
    """Calls through, except for the first calls (of a kind of artifact), which raise."""

    def __init__(
        self, through: Callable[..., object], error: Exception, num_failures: int, kind: str | None = None
    ) -> None:
        self.through, self.error, self.num_failures, self.kind = through, error, num_failures, kind

    def __call__(self, *given: object, **named: object) -> object:
        if named.get("kind") == self.kind:
            self.num_failures -= 1
            if self.num_failures >= 0:
                raise self.error
        return self.through(*given, **named)


@pytest.fixture(autouse=True)
def _quiet_doorbell() -> None:
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)


@pytest.mark.parametrize("name", ["claim", "renew", "record", "save_checkpoint", "save_log", "succeed"])
def test_a_database_that_is_away_for_a_moment_costs_nothing(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flaky = Flaky(getattr(life, name), AWAY, 2)
    monkeypatch.setattr(life, name, flaky)
    job_id = office.submit(labels={"noop.steps": "12", "noop.wait": "0.2"})
    for _ in range(3 if name == "claim" else 1):  # whoever could not claim waits for another ring
        serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 1, 0)
    assert flaky.num_failures < 0
    values = [line.event.step for line in office.events(job_id) if isinstance(line.event, Measured)]
    assert values == list(range(1, 13))


@pytest.mark.parametrize("end", ["fail", "lose"])
def test_an_end_is_written_when_the_database_is_back(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(life, end, Flaky(getattr(life, end), AWAY, 2))
    how = {"fail": "user", "lose": "kill"}[end]
    job_id = office.submit(labels={"noop.die": how, "noop.die_at": "3"})
    serve(shop, "cpu")
    assert office.row(job_id).status == {"fail": Status.FAILED, "lose": Status.SUCCEEDED}[end]


def test_results_wait_for_room_in_the_store(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "store_file", Flaky(store_file, StorageFullError(), 2, "model"))
    job_id = office.submit(labels={"noop.steps": "3"})
    serve(shop, "cpu")
    assert office.row(job_id).status == Status.SUCCEEDED


def test_training_goes_on_without_a_checkpoint_that_finds_no_room(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_CHECKPOINT_SECONDS", 0.05)
    monkeypatch.setattr(results, "store_file", Flaky(store_file, StorageFullError(), 10**6, "state"))
    job_id = office.submit(labels={"noop.steps": "4"})
    serve(shop, "cpu")
    assert office.row(job_id).status == Status.SUCCEEDED
    notes = [line.event for line in office.events(job_id) if isinstance(line.event, Noted)]
    assert [note.code for note in notes] == ["checkpoint_not_stored"]


def test_a_job_that_is_lost_during_an_outage_is_let_go(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = office.submit(labels={"noop.steps": "3"})

    def taken_meanwhile(*_: object) -> object:
        office.set(job_id, attempt=2, lease_worker="another", lease_until=now(60))
        raise AWAY

    monkeypatch.setattr(life, "succeed", taken_meanwhile)
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.lease_worker) == (Status.RUNNING, 2, "another")
    assert shop.devices.num_free == 1


def test_draining_does_not_wait_for_ever_for_a_database(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = office.submit(labels={"noop.steps": "3"})

    def drain_meanwhile(*_: object) -> object:
        shop.draining.set()
        raise AWAY

    monkeypatch.setattr(life, "succeed", drain_meanwhile)
    serve(shop, "cpu")
    assert office.row(job_id).status == Status.RUNNING, "the reaper will find it"
    wait_until(lambda: shop.devices.num_free == 1)


def test_inputs_are_waited_for_as_long_as_the_store_is_away(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STAGING_SECONDS", 0.05)
    monkeypatch.setattr(artifacts, "content", Flaky(artifacts.content, UnavailableError(), 4))
    job_id = office.submit(labels={"noop.steps": "3"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 1, 0)


def test_a_store_that_refuses_a_worker_is_left_to_others(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STAGING_SECONDS", 0.05)
    monkeypatch.setattr(artifacts, "content", Flaky(artifacts.content, RefusedError(), 2))
    job_id = office.submit(labels={"noop.steps": "3"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt) == (Status.SUCCEEDED, row.losses + 1)
    assert row.losses > 0


@pytest.mark.parametrize("name", ["content", "store_file"], ids=["staging", "storing results"])
def test_draining_while_the_store_is_away_is_no_loss(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def drain_meanwhile(*_: object, **_named: object) -> object:
        shop.draining.set()
        raise UnavailableError

    monkeypatch.setattr(artifacts if name == "content" else results, name, drain_meanwhile)
    job_id = office.submit(labels={"noop.steps": "3", "noop.every": "1000"})
    serve(shop, "cpu")
    row = office.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.QUEUED, 1, 0)
