"""What crosses the pipe between supervisor and trainer: JSON bytes, limited in length, validated on arrival.

Never a pickle: a trainer has opened hostile bytes, and unpickling would let it run code in the supervisor.
"""

import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.kit.logs import LogFormat, LogLevel
from stillhouse.contract.events import TrainerEvent
from stillhouse.contract.lending import Lent, Wanted
from stillhouse.contract.status import Kind, Request
from worker.sandbox import Mode

MAX_EVENT_BYTES = 8 * 1024 * 1024
# Of a request, or of an answer: the paths of as many shards as may be wanted at once.
MAX_REQUEST_BYTES = 4 * 1024 * 1024

# What a trainer may say: what happens, which is recorded, and what it asks, which is answered.
Word = Annotated[TrainerEvent | Wanted, Field(discriminator="type")]
_WORD: TypeAdapter[Word] = TypeAdapter(Word)


class ProtocolError(Exception):
    """The other end of the pipe sent something that is no message."""


class LogStyle(BaseModel):
    """How a trainer writes its log lines, and what stands in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: LogFormat = "json"
    level: LogLevel = "INFO"
    worker: str | None = None
    request_id: str | None = Field(default=None, description="Of the request that submitted the job.")


class Order(BaseModel):
    """All that a trainer is told. Holds no credential."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    kind: Kind = Field(default="job", description="What to do: the whole job, or the plan of it.")
    attempt: int
    spec: dict[str, Any] = Field(description="As it was sent.")
    owner: str = Field(description="Whose job it is: a part of the keys of soft labels.")
    inputs: dict[str, Path] = Field(description="Artifact id -> the staged file.")
    digests: dict[str, str] = Field(description="Artifact id -> sha256 of the staged file.")
    scratch: Path = Field(description="The folder that the attempt may write to.")
    log: Path = Field(description="Where stdout and stderr go.")
    lines: LogStyle = LogStyle()
    checkpoint: Path | None = Field(description="What to resume from.")
    device: str = Field(description="cpu, or cuda:N; several with commas between them.")
    threads: int = Field(ge=1, description="For every library that computes.")
    engine: str = Field(description="Module whose `run` is called.")
    sandbox: Mode = Field(default="preferred", description="Whether the trainer may do without a part of its sandbox.")
    lent: Path | None = Field(default=None, description="Where files come that the trainer asks for later.")
    code_version: str = Field(description="Digest of the supervisor's code; the trainer's must be the same.")
    orphan_seconds: float = Field(
        gt=0, description="How long the trainer may go on after its supervisor died; less than what a lease has left."
    )


class _Down(BaseModel):
    request: Request | None = None
    lent: Lent | None = None


def encode_event(event: Word) -> bytes:
    """The event, or the question, as it goes up the pipe. Raises ProtocolError if it is too long."""
    data = event.model_dump_json().encode()
    if len(data) > MAX_EVENT_BYTES:
        raise ProtocolError(f"an event of type {event.type} has {len(data)} bytes; {MAX_EVENT_BYTES} are allowed")
    return data


def receive_event(pipe: Connection) -> Word:
    """The next word from the trainer. Raises EOFError at the end, ProtocolError for anything that is none."""
    try:
        return _WORD.validate_json(pipe.recv_bytes(MAX_EVENT_BYTES))
    except ValidationError as error:
        raise ProtocolError(f"not an event: {error.error_count()} errors") from error
    except OSError as error:
        if pipe.readable:  # it died, perhaps in the middle of a word
            raise EOFError from error
        raise ProtocolError(f"longer than {MAX_EVENT_BYTES} bytes, or not a message") from error


def encode_request(request: Request) -> bytes:
    """The request as it goes down the pipe."""
    return json.dumps({"request": request}).encode()


def encode_lent(lent: Lent) -> bytes:
    """The answer as it goes down the pipe."""
    return _Down(lent=lent).model_dump_json(exclude_none=True).encode()


def receive_request(pipe: Connection) -> Request | Lent:
    """The next request from the supervisor, or its answer. Raises EOFError when it is gone."""
    try:
        down = _Down.model_validate_json(pipe.recv_bytes(MAX_REQUEST_BYTES))
    except OSError as error:  # a reset connection
        raise EOFError from error
    return down.request or down.lent or Lent()
