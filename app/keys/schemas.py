"""API keys as the API takes and tells them."""

from pydantic import BaseModel, ConfigDict, Field

from app.keys.models import ApiKeyRow
from stillhouse.contract.resources import ApiKey, CreatedApiKey


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=128, description="What it is for, for people.")
    owner: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Whose key it is: yours when left out. Only an administrator's key may name another owner.",
    )


def key_resource(row: ApiKeyRow) -> ApiKey:
    """The key, without its secret."""
    return ApiKey(
        id=row.id, name=row.name, prefix=row.prefix, created_at=row.created_at, last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def created_key_resource(row: ApiKeyRow, secret: str) -> CreatedApiKey:
    """The key with its secret."""
    return CreatedApiKey(**key_resource(row).model_dump(), secret=secret)
