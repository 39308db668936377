"""Uploads as the API tells them."""

from app.uploads.models import UploadRow
from stillhouse.contract.failures import Failure
from stillhouse.contract.resources import Upload


def upload_resource(row: UploadRow) -> Upload:
    """The upload for its owner."""
    return Upload(
        id=row.id, status=_status(row), name=row.name, kind=row.kind, offset=row.received, length=row.length,
        artifact_id=row.artifact_id, error=Failure.model_validate(row.error) if row.error else None,
        created_at=row.created_at, expires_at=row.expires_at,
    )


def _status(row: UploadRow) -> str:
    if row.error is not None:
        return "refused"
    if row.artifact_id is not None:
        return "finished"
    return "finishing" if row.received == row.length else "receiving"
