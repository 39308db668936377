"""A whole attempt, kill included, on SQLite and on PostgreSQL."""

import json
import logging
from dataclasses import replace

from app.artifacts import service as artifacts
from app.jobs import queries
from app.settings import Settings
from stillhouse.contract.status import Status
from tests.fixtures.jobs import Desk
from tests.fixtures.noop_engine import count
from tests.fixtures.plans import small_plan
from worker.supervisor import serve
from worker.workshop import Workshop


def test_a_plan_is_made(shop: Workshop, config: Settings, desk: Desk) -> None:
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)
    there = replace(shop, settings=config, db=desk.db, stores=desk.stores)
    plan_id = desk.submit(queue="plans")
    serve(there, "plans")
    row = desk.row(plan_id)
    assert (row.status, row.attempt) == (Status.SUCCEEDED, 1)
    assert row.plan is not None
    assert row.plan["student"] == small_plan().student.model_dump()


def test_a_killed_job_is_resumed_and_succeeds(shop: Workshop, config: Settings, desk: Desk) -> None:
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)
    there = replace(shop, settings=config, db=desk.db, stores=desk.stores)
    job_id = desk.submit(labels={"noop.steps": "20", "noop.every": "5", "noop.die": "kill", "noop.die_at": "13"})
    serve(there, "cpu")
    assert (desk.row(job_id).status, desk.row(job_id).losses) == (Status.SUCCEEDED, 1)
    with desk.db.reading() as session:
        _, bundle = session.execute(queries.files(), {"job_id": job_id}).one()
        result = json.loads(b"".join(artifacts.content(desk.stores, bundle)))
    assert (result["state"], result["runs"]) == (count(20), [0, 10])
