"""Plans as the API tells them."""

from app.jobs.models import JobRow
from stillhouse.contract.failures import Failure
from stillhouse.contract.plan import Plan
from stillhouse.contract.resources import Planning, QueuePlace
from stillhouse.contract.status import TERMINAL, actions


def planning_resource(row: JobRow, place: QueuePlace | None) -> Planning:
    """The plan for its owner, with its place in the queue while it has one."""
    return Planning(
        id=row.id, status=row.status, terminal=row.status in TERMINAL, attempt=row.attempt, losses=row.losses,
        queue=place, plan=None if row.plan is None else Plan.model_validate(row.plan),
        error=None if row.error is None else Failure.model_validate(row.error),
        allowed_actions=sorted(actions(row.status, row.kind)), spec=row.spec, created_at=row.created_at,
        started_at=row.started_at, finished_at=row.finished_at,
    )
