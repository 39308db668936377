"""Artifacts as the API tells them."""

from app.artifacts.models import ArtifactRow
from stillhouse.contract.resources import Artifact


def artifact_resource(row: ArtifactRow) -> Artifact:
    """The artifact for its owner."""
    return Artifact(
        id=row.id, kind=row.kind, name=row.name, format=row.format, size=row.size, sha256=row.sha256, facts=row.facts,
        job_id=row.job_id, created_at=row.created_at,
    )
