"""The rounds of the reaper."""

from dataclasses import replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.jobs import life
from app.jobs.models import JobRow
from app.kit.clock import now
from app.soft_labels.models import SoftLabelsRow
from stillhouse.contract.events import SoftLabelsSaved
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.waiting import wait_until
from worker import reaper
from worker.slots import Slots
from worker.workshop import Workshop

Rings = list[tuple[str, str]]


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Rings:
    """Every ring, instead of a broker."""
    heard: Rings = []
    monkeypatch.setattr("app.queue.ring", lambda _url, name, job_id: heard.append((name, job_id)))
    return heard


def test_a_job_whose_lease_ran_out_is_queued_and_rung(shop: Workshop, office: Desk, rings: Rings) -> None:
    job_id = office.submit()
    office.claim()
    reaper.reap(shop)
    assert office.row(job_id).status == Status.RUNNING
    office.expire(job_id)
    reaper.reap(shop)
    reaper.reap(shop)
    assert (office.row(job_id).status, office.row(job_id).losses) == (Status.QUEUED, 1)
    reaper.ring_again(shop)
    assert rings == [("cpu", job_id)]


def test_a_ring_is_repeated_only_when_it_is_old(shop: Workshop, office: Desk, rings: Rings) -> None:
    job_id = office.submit()
    reaper.ring_again(shop)
    assert rings == [], "submitting counts as a ring"
    office.set(job_id, rung_at=now(-shop.settings.ring_again_seconds - 1))
    reaper.ring_again(shop)
    reaper.ring_again(shop)
    assert rings == [("cpu", job_id)]


def test_no_more_is_rung_than_there_is_room_for(shop: Workshop, office: Desk, rings: Rings) -> None:
    shop = replace(shop, devices=Slots(2))
    for _ in range(5):
        office.set(office.submit(), rung_at=None)
    assert shop.plans.take()
    reaper.ring_again(shop)
    assert len(rings) == 2
    assert shop.devices.take(2)
    reaper.ring_again(shop)
    assert len(rings) == 2


def test_a_plan_is_rung_however_many_jobs_wait(shop: Workshop, office: Desk, rings: Rings) -> None:
    for _ in range(5):
        office.set(office.submit(), rung_at=None)
    plan_id = office.submit(queue="plans")
    office.set(plan_id, rung_at=None)
    assert shop.devices.take()
    reaper.ring_again(shop)
    assert rings == [("plans", plan_id)]


def test_old_plans_are_forgotten(shop: Workshop, office: Desk) -> None:
    shop = replace(shop, settings=shop.settings.model_copy(update={"reap_seconds": 0.01, "plan_hours": 2.0}))
    old, young = office.submit(queue="plans"), office.submit(queue="plans")
    office.set(old, created_at=now(-2 * 3600 - 1))
    office.set(young, created_at=now(-2 * 3600 + 60))
    thread = reaper.start(shop)
    wait_until(lambda: not exists(office, old))
    shop.draining.set()
    thread.join(10)
    assert exists(office, young)


def exists(office: Desk, job_id: str) -> bool:
    with office.db.reading() as session:
        return session.get(JobRow, job_id) is not None
def test_the_rounds_drop_soft_labels_that_nobody_uses(shop: Workshop, office: Desk) -> None:
    shop = replace(shop, settings=shop.settings.model_copy(update={"reap_seconds": 0.01, "soft_label_days": 1.0}))
    office.submit()
    claim = office.claim()
    keys = [f"{number:064x}" for number in range(2)]
    for key, seconds in zip(keys, (25 * 3600, 23 * 3600), strict=True):
        event = SoftLabelsSaved(key=key, split="train", view=0, shard=0, num_rows=1, seconds=1, file="x")
        made = upload(office.db, office.stores, key.encode(), kind="soft_labels", job_id=claim.job_id)
        life.save_soft_labels(office.db, claim, event, made.id)
        with office.db.writing() as session:
            session.execute(
                update(SoftLabelsRow).where(SoftLabelsRow.key == key).values(last_used_at=now(-seconds))
            )
    thread = reaper.start(shop)
    life.fail(office.db, claim, DivergedError().as_failure())

    def left() -> list[str]:
        with office.db.reading() as session:
            return list(session.scalars(select(SoftLabelsRow.key)))

    wait_until(lambda: left() == keys[1:])
    shop.draining.set()
    thread.join(10)
    assert left() == keys[1:]


def test_the_rounds_go_on_after_an_outage_and_let_the_living_renew_first(
    shop: Workshop, office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = replace(shop, settings=shop.settings.model_copy(update={"reap_seconds": 0.01, "lease_seconds": 0.5}))
    job_id = office.submit()
    claim = office.claim()
    office.expire(job_id)
    reap, num_calls = life.reap, 0

    def fail_once(*given: object) -> list[str]:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            raise OperationalError("SELECT", {}, OSError("the database was away"))
        return reap(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(life, "reap", fail_once)
    thread = reaper.start(shop)
    wait_until(lambda: num_calls == 1)
    life.renew(office.db, claim, 30)
    wait_until(lambda: num_calls > 2)
    assert office.row(job_id).status == Status.RUNNING
    shop.draining.set()
    thread.join(10)
    assert not thread.is_alive()
