"""What an engine asks of a store of soft labels, and what it is answered.

A shard is a file of soft labels, called by its key: a digest of all that goes into it. Whoever asks for shards is lent
those that are there, and is told which of the others to make and who makes the rest.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

MAX_WANTED: Final = 512  # keys at once: an answer stays well below what the pipe takes

ShardKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Wanted(BaseModel):
    """A question. Keys are told in the order in which they are to be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["wanted"] = "wanted"
    keys: list[ShardKey] = Field(min_length=1, max_length=MAX_WANTED)
    num_to_make: int = Field(ge=0, le=MAX_WANTED, description="How many of the missing ones whoever asks would make.")


class Lent(BaseModel):
    """The answer. What is neither there nor to be made is being made by somebody else: ask again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready: dict[ShardKey, Path] = Field(default={}, description="Verified files; they stay while the job runs.")
    to_make: list[ShardKey] = Field(default=[], description="Nobody else makes these while whoever asked lives.")
    makers: list[str] = Field(default=[], description="Jobs that make some of the others.")
    seconds_saved: float = Field(default=0.0, description="What the ready ones took to make.")


class LabelStore(Protocol):
    """Where shards are kept."""

    @property
    def owner(self) -> str:
        """Whose shards they are. A part of every key."""

    def digest(self, artifact_id: str) -> str:
        """The sha256 of an input of the job."""

    def ask(self, wanted: Wanted) -> Lent:
        """What is there and what to make. Empty once the job is asked to stop."""

    def put(self, key: str, file: Path) -> Path:
        """Keep a finished shard; where it is to be read from now on."""
