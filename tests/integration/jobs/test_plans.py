"""Plans live as jobs do, on a slot of their own, and are forgotten."""

import pytest
from sqlalchemy import func, select

from app.artifacts import service as artifacts
from app.artifacts.models import ArtifactRow
from app.jobs import life, queries, service
from app.jobs.models import JobAttemptRow, JobEventRow, JobInputRow, JobMetricRow, JobRow
from app.kit.clock import now
from stillhouse.contract.events import CheckpointSaved, Measured, Planned, StatusChanged
from stillhouse.contract.failures import LabelOutOfRangeError, NotFoundError
from stillhouse.contract.status import Phase, Status
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.plans import small_plan

DAY = 24 * 3600.0


def test_a_plan_ends_with_what_preflight_found(desk: Desk) -> None:
    plan_id = desk.submit(queue="plans")
    claim = desk.claim(queue="plans")
    assert (claim.job_id, claim.kind) == (plan_id, "plan")
    assert plan_id.startswith("plan_")
    life.plan(desk.db, claim, Planned(plan=small_plan()))
    row = desk.row(plan_id)
    assert (row.status, row.kind, row.percent, row.lease_worker) == (Status.SUCCEEDED, "plan", 100.0, None)
    assert row.plan == small_plan().model_dump(mode="json")
    assert [line.event for line in desk.events(plan_id)][-2:] == [
        Planned(plan=small_plan()), StatusChanged(status=Status.SUCCEEDED, reason="planned"),
    ]


def test_a_plan_that_was_taken_away_is_not_written(desk: Desk) -> None:
    plan_id = desk.submit(queue="plans")
    claim = desk.claim(queue="plans")
    desk.expire(plan_id)
    assert life.reap(desk.db, max_losses=3) == [plan_id]
    assert (desk.row(plan_id).status, desk.row(plan_id).losses) == (Status.QUEUED, 1)
    with pytest.raises(life.FencedError):
        life.plan(desk.db, claim, Planned(plan=small_plan()))
    assert desk.row(plan_id).plan is None


def test_a_plan_is_found_and_listed_as_a_plan_only(desk: Desk) -> None:
    plan_id, job_id = desk.submit(queue="plans"), desk.submit()
    with desk.db.reading() as session:
        assert service.find(session, "ann", plan_id, "plan").id == plan_id
        with pytest.raises(NotFoundError):
            service.find(session, "ann", plan_id, "job")
        with pytest.raises(NotFoundError):
            service.find(session, "ann", job_id, "plan")
        assert [row.id for row in service.page(session, "ann").rows] == [job_id]
        assert {row[:3] for row in session.execute(queries.standing(60))} == {
            ("cpu", Status.QUEUED, 1), ("plans", Status.QUEUED, 1),
        }


def test_a_running_plan_does_not_count_against_its_owners_jobs(desk: Desk) -> None:
    desk.submit("ann", queue="plans")
    desk.claim(queue="plans")
    first, second = desk.submit("ann"), desk.submit("bob")
    assert places(desk, first, second) == [1, 2]
    assert desk.claim().job_id == first
    assert places(desk, second) == [1]


def test_running_jobs_do_not_count_against_their_owners_plans(desk: Desk) -> None:
    desk.submit("ann")
    desk.claim()
    first, second = desk.submit("ann", queue="plans"), desk.submit("bob", queue="plans")
    assert places(desk, first, second) == [1, 2]
    assert desk.claim(queue="plans").job_id == first
    third = desk.submit("ann", queue="plans")
    assert places(desk, second, third) == [1, 2]
    assert desk.claim(queue="plans").job_id == second


def places(desk: Desk, *job_ids: str) -> list[int]:
    with desk.db.reading() as session:
        found = [service.queue_place(session, session.get_one(JobRow, job_id)) for job_id in job_ids]
    return [place.position for place in found if place]


def test_jobs_that_wait_do_not_keep_a_plan_from_being_rung(desk: Desk) -> None:
    for _ in range(3):
        desk.set(desk.submit(), rung_at=None)
    plan_id = desk.submit(queue="plans-gpu")
    desk.set(plan_id, rung_at=None)
    assert life.take_rings(desk.db, older_than_seconds=30, limit=1, kind="plan") == [(plan_id, "plans-gpu")]
    assert [queue for _, queue in life.take_rings(desk.db, older_than_seconds=30, limit=9)] == ["cpu"] * 3


def test_old_plans_are_forgotten_with_all_that_belongs_to_them(desk: Desk) -> None:
    running = desk.submit(queue="plans")
    desk.claim(queue="plans")
    old = [ended(desk), failed(desk), queued_with_leftovers(desk)]
    job_id, young = desk.submit(), desk.submit(queue="plans")
    for row_id in (*old, running, job_id):
        desk.set(row_id, created_at=now(-DAY - 1))
    assert life.forget_plans(desk.db, older_than_seconds=DAY) == 3
    assert life.forget_plans(desk.db, older_than_seconds=DAY) == 0
    with desk.db.reading() as session:
        assert set(session.scalars(select(JobRow.id))) == {running, job_id, young}
        for table in (JobInputRow, JobEventRow, JobAttemptRow, JobMetricRow):
            left = select(func.count()).select_from(table).where(table.job_id.in_(old))
            assert session.scalars(left).one() == 0, table
        assert session.scalars(select(func.count()).where(ArtifactRow.kind == "state")).one() == 0
    artifacts.sweep(desk.db, desk.stores)
    assert desk.row(job_id).status == Status.QUEUED


def ended(desk: Desk) -> str:
    plan_id = desk.submit(queue="plans")
    life.plan(desk.db, desk.claim(queue="plans"), Planned(plan=small_plan()))
    return plan_id


def failed(desk: Desk) -> str:
    plan_id = desk.submit(queue="plans")
    life.fail(desk.db, desk.claim(queue="plans"), LabelOutOfRangeError().as_failure())
    return plan_id


def queued_with_leftovers(desk: Desk) -> str:
    """A plan whose trainer said what no plan says, before it was lost."""
    plan_id = desk.submit(queue="plans")
    claim = desk.claim(queue="plans")
    kept = upload(desk.db, desk.stores, b"state", kind="state", job_id=plan_id)
    life.save_checkpoint(desk.db, claim, CheckpointSaved(phase=Phase.DISTILLING, step=1, file="x"), kept.id)
    life.record(desk.db, claim, [Measured(phase=Phase.DISTILLING, step=1, values={"loss": 1.0})])
    life.lose(desk.db, claim, "it died", max_losses=3)
    return plan_id
