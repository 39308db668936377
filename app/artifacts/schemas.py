"""Artifacts as the API tells them."""

from collections.abc import Mapping
from typing import Any

from app.artifacts.models import ArtifactRow
from stillhouse.contract.resources import Artifact


def artifact_resource(row: ArtifactRow, usage: Mapping[str, Any] | None = None) -> Artifact:
    """The artifact for its owner; `usage` tells how often soft labels were used."""
    return Artifact(
        id=row.id, kind=row.kind, name=row.name, format=row.format, size=row.size, sha256=row.sha256,
        facts={**row.facts, **(usage or {})}, job_id=row.job_id, created_at=row.created_at,
    )
