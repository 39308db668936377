"""Claim, page and reap find their rows by an index, however many jobs there are."""

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import sqlite

from app.artifacts import queries as artifact_queries
from app.jobs import queries
from app.kit.database import Database

STATEMENTS: dict[str, tuple[ClauseElement, str]] = {
    "look": (queries.next_width(["cpu"], 4), "ix_jobs_status_queue"),
    "claim": (queries.next_queued(["cpu"], 1), "ix_jobs_status_queue"),
    "reap": (queries.expired(10), "ix_jobs_status_lease_until"),
    "ring": (queries.unrung(30, 10), "ix_jobs_status_"),
    "ring for plans": (queries.unrung(30, 10, "plan"), "ix_jobs_status_"),
    "count": (queries.standing(60), "ix_jobs_status_"),
    "forget plans": (queries.old_plans(3600, 10), "ix_jobs_kind_created_at"),
    "page": (queries.listed("ann", status=None, name=None, labels={}, cursor=None), "ix_jobs_owner_created_at_id"),
    "events": (queries.events_after("job", 5), "sqlite_autoindex_job_events_1"),
    "artifacts": (
        artifact_queries.listed("ann", kind="data", size=None, cursor=None), "ix_artifacts_owner_created_at_id",
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_plan_uses_an_index(sqlite_database: Database, name: str) -> None:
    statement, index = STATEMENTS[name]
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with sqlite_database.reading() as session:
        plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
    steps = [row[3] for row in plan]
    assert any(index in step for step in steps), steps
    assert not any(step.startswith(("SCAN jobs", "SCAN artifacts", "SCAN job_events")) for step in steps), steps
