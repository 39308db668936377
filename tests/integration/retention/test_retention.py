"""What is old enough goes, and nothing that a living job needs. On both databases."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from app.artifacts.models import ArtifactRow
from app.jobs import life
from app.jobs.models import JobEventRow, JobMetricRow
from app.kit.clock import now
from app.retention import service as retention
from app.retention.models import ChoreRow
from app.settings import Settings
from stillhouse.contract.events import Finished, Measured, Noted, PhaseStarted, Progressed
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.status import Phase
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.reports import small_report

DAY = 24 * 3600.0


def artifact_ids(desk: Desk) -> set[str]:
    with desk.db.reading() as session:
        return set(session.scalars(select(ArtifactRow.id)))


def age_artifacts(desk: Desk, days: float) -> None:
    with desk.db.writing() as session:
        session.execute(update(ArtifactRow).values(created_at=now(-days * DAY)))


def input_of(claim: life.Claim) -> str:
    found: str = claim.spec["data"]["train"]["inputs"]
    return found


def test_artifacts_go_some_days_after_their_last_use(desk: Desk) -> None:
    unused, downloaded = (upload(desk.db, desk.stores, name.encode()).id for name in ("unused", "downloaded"))
    age_artifacts(desk, 8)
    with desk.db.writing() as session:
        session.execute(update(ArtifactRow).where(ArtifactRow.id == downloaded).values(last_used_at=now(-6 * DAY)))
    assert retention.drop_unused(desk.db, 9 * DAY) == 0
    assert retention.drop_unused(desk.db, 7 * DAY) == 1
    assert artifact_ids(desk) == {downloaded} != {unused}


def test_what_a_living_job_reads_or_made_stays_and_goes_some_days_after_its_end(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    made = upload(desk.db, desk.stores, b"student", kind="model", job_id=job_id).id
    age_artifacts(desk, 30)
    assert retention.drop_unused(desk.db, 7 * DAY) == 0
    life.succeed(desk.db, claim, Finished(report=small_report(), files=[]), [("bundle", made)])
    assert retention.drop_unused(desk.db, 7 * DAY) == 0
    desk.set(job_id, finished_at=now(-7 * DAY - 1))
    assert artifact_ids(desk) == {input_of(claim), made}
    assert retention.drop_unused(desk.db, 7 * DAY) == 2
    assert artifact_ids(desk) == set()
    assert desk.row(job_id).report is not None


def test_what_a_dead_worker_stored_for_an_ended_job_goes(desk: Desk) -> None:
    desk.submit()
    claim = desk.claim()
    state = upload(desk.db, desk.stores, b"state", kind="state", job_id=claim.job_id).id
    assert retention.drop_strays(desk.db) == 0
    life.fail(desk.db, claim, DivergedError().as_failure())
    late = upload(desk.db, desk.stores, b"late", kind="state", job_id=claim.job_id).id
    assert artifact_ids(desk) == {input_of(claim), late}
    assert retention.drop_strays(desk.db) == 1
    assert artifact_ids(desk) == {input_of(claim)} != {state}


def log_a_long_job(desk: Desk, num_steps: int) -> str:
    job_id = desk.submit()
    claim = desk.claim()
    life.record(desk.db, claim, [
        PhaseStarted(phase=Phase.DISTILLING, total_steps=num_steps), Noted(code="milestone", message="One."),
    ])
    life.record(desk.db, claim, [
        Progressed(phase=Phase.DISTILLING, step=step, total_steps=num_steps, percent=1) for step in range(1, 700)
    ])
    life.record(desk.db, claim, [Measured(phase=Phase.DISTILLING, step=num_steps, values={"short": 1.0})])
    with desk.db.writing() as session:
        session.execute(insert(JobMetricRow), [
            {"job_id": job_id, "phase": "distilling", "name": "loss", "step": step,
             "value": -7.0 if step == 1234 else 1000.0 if step == 2345 else (step * 37) % 101 / 101}
            for step in range(num_steps)
        ])
    life.fail(desk.db, claim, DivergedError().as_failure())
    return job_id


def types_of(desk: Desk, job_id: str) -> list[str]:
    with desk.db.reading() as session:
        return list(session.scalars(
            select(JobEventRow.type).where(JobEventRow.job_id == job_id).order_by(JobEventRow.seq)
        ))


def points_of(desk: Desk, job_id: str, name: str) -> list[tuple[int, float | None]]:
    with desk.db.reading() as session:
        return [(row.step, row.value) for row in session.scalars(
            select(JobMetricRow).where(JobMetricRow.job_id == job_id, JobMetricRow.name == name)
            .order_by(JobMetricRow.step)
        )]


def test_an_old_job_keeps_its_milestones_and_the_shape_of_its_curves(desk: Desk) -> None:
    job_id = log_a_long_job(desk, 5000)
    desk.set(job_id, finished_at=now(-29 * DAY))
    assert retention.thin_histories(desk.db, 30 * DAY) == 0
    assert len(points_of(desk, job_id, "loss")) == 5000
    desk.set(job_id, finished_at=now(-31 * DAY))
    assert retention.thin_histories(desk.db, 30 * DAY) > 2, "no transaction takes everything"
    assert types_of(desk, job_id) == ["status", "status", "phase", "note", "failed", "status"]
    points = points_of(desk, job_id, "loss")
    assert 900 <= len(points) <= 1100
    assert {0, 1234, 2345, 4999} <= {step for step, _ in points}
    assert len(points_of(desk, job_id, "short")) == 1
    assert retention.thin_histories(desk.db, 30 * DAY) == 0
    assert points_of(desk, job_id, "loss") == points


def test_a_running_job_is_never_thinned(desk: Desk) -> None:
    job_id = desk.submit()
    claim = desk.claim()
    life.record(desk.db, claim, [Progressed(phase=Phase.DISTILLING, step=1, total_steps=2, percent=1)])
    desk.set(job_id, created_at=now(-99 * DAY), started_at=now(-99 * DAY))
    assert retention.thin_histories(desk.db, DAY) == 0
    assert "progress" in types_of(desk, job_id)


def test_one_worker_at_a_time_and_no_sooner_than_due(desk: Desk) -> None:
    job_id = log_a_long_job(desk, 10)
    desk.set(job_id, finished_at=now(-31 * DAY))
    settings = Settings(retention_seconds=600)
    with ThreadPoolExecutor(4) as pool:
        done = [result for result in pool.map(lambda _: retention.run(desk.db, settings), range(8)) if result]
    assert len(done) == 1
    assert retention.run(desk.db, settings) == {}
    with desk.db.writing() as session:
        session.execute(update(ChoreRow).values(due_at=now(-1)))
    assert retention.run(desk.db, settings) == {}, "nothing is left to do"
    with desk.db.reading() as session:
        assert session.scalars(select(ChoreRow.due_at > now(590))).one()


def test_what_is_left_over_is_due_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        upload(desk.db, desk.stores, str(number).encode())
    age_artifacts(desk, 8)
    monkeypatch.setattr(retention, "_LIMIT", 2)
    settings = Settings(artifact_days=7)
    left = []
    for _ in range(4):
        retention.run(desk.db, settings)
        left.append(len(artifact_ids(desk)))
    assert left == [3, 1, 0, 0]


VALUES = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_nan=False))


@given(st.lists(VALUES, min_size=1, max_size=400), st.integers(2, 60))
def test_a_thinned_curve_keeps_its_ends_and_extremes(values: Sequence[float | None], max_points: int) -> None:
    points = list(enumerate(values))
    kept = retention.kept_steps(points, max_points)
    finite = [value for value in values if value is not None]
    assert {0, len(values) - 1} <= kept <= set(range(len(values)))
    assert len(kept) <= max_points + max_points // 2 + 2
    if finite:
        told = {values[step] for step in kept}
        assert {min(finite), max(finite)} <= told
