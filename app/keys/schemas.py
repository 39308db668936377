"""API keys as the API takes and tells them."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.keys.models import ApiKeyRow
from stillhouse.contract.resources import USUAL_SCOPES, ApiKey, CreatedApiKey, HeldKey, KeyLimits, Scope, Used

MOST_OVERLAP = 30 * 24 * 3600


class NewKeyLimits(KeyLimits):
    """Limits of a new key's own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=128, description="What it is for, for people.")
    owner: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Whose key it is: yours when left out.",
    )
    scopes: Sequence[Scope] = Field(
        default=USUAL_SCOPES, min_length=1, max_length=3,
        description="What it may do: `read` looks and downloads, `submit` uploads, submits, cancels and deletes, "
        "`admin` makes, rotates and revokes keys of all owners. None includes another.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When it ends, with a time zone; never when left out."
    )
    limits: NewKeyLimits = Field(default=NewKeyLimits(), description="Limits in place of the service's.")


class Rotation(BaseModel):
    """How a key's secret is to be replaced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    overlap_seconds: int = Field(
        default=24 * 3600, ge=0, le=MOST_OVERLAP,
        description="How long the secret before stays valid too, so that programs can be given the new one.",
    )


def key_resource(row: ApiKeyRow) -> ApiKey:
    """The key, without its secret."""
    return ApiKey(
        id=row.id, owner=row.owner, name=row.name, scopes=row.scopes.split(),
        limits=KeyLimits.model_validate(row.limits or {}), prefix=row.prefix, created_at=row.created_at,
        last_used_at=row.last_used_at, expires_at=row.expires_at, revoked_at=row.revoked_at,
    )


def created_key_resource(row: ApiKeyRow, secret: str, former_ends_at: datetime | None = None) -> CreatedApiKey:
    """The key with its secret."""
    return CreatedApiKey(**dict(key_resource(row)), secret=secret, former_secret_ends_at=former_ends_at)


def held_key_resource(row: ApiKeyRow, in_force: KeyLimits, used: Used) -> HeldKey:
    """The key with the limits that hold for it, and what its owner uses of them."""
    return HeldKey(**dict(key_resource(row)), in_force=in_force, used=used)
