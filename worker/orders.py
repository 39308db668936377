"""What crosses the pipe between supervisor and trainer: JSON bytes, limited in length, validated on arrival.

Never a pickle: a trainer has opened hostile bytes, and unpickling would let it run code in the supervisor.
"""

import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillhouse.contract.events import TRAINER_EVENT, TrainerEvent
from stillhouse.contract.status import Kind, Request

MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_REQUEST_BYTES = 4096


class ProtocolError(Exception):
    """The other end of the pipe sent something that is no message."""


class Order(BaseModel):
    """All that a trainer is told. Holds no credential."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    kind: Kind = Field(default="job", description="What to do: the whole job, or the plan of it.")
    attempt: int
    spec: dict[str, Any] = Field(description="As it was sent.")
    inputs: dict[str, Path] = Field(description="Artifact id -> the staged file.")
    scratch: Path = Field(description="The folder that the attempt may write to.")
    log: Path = Field(description="Where stdout and stderr go.")
    checkpoint: Path | None = Field(description="What to resume from.")
    device: str = Field(description="cpu, or cuda:N.")
    threads: int = Field(ge=1, description="For every library that computes.")
    engine: str = Field(description="Module whose `run` is called.")
    code_version: str = Field(description="Digest of the supervisor's code; the trainer's must be the same.")
    orphan_seconds: float = Field(
        gt=0, description="How long the trainer may go on after its supervisor died; less than what a lease has left."
    )


class _Asking(BaseModel):
    request: Request


def encode_event(event: TrainerEvent) -> bytes:
    """The event as it goes up the pipe. Raises ProtocolError if it is too long."""
    data = event.model_dump_json().encode()
    if len(data) > MAX_EVENT_BYTES:
        raise ProtocolError(f"an event of type {event.type} has {len(data)} bytes; {MAX_EVENT_BYTES} are allowed")
    return data


def receive_event(pipe: Connection) -> TrainerEvent:
    """The next event from the trainer. Raises EOFError at the end, ProtocolError for anything but an event."""
    try:
        return TRAINER_EVENT.validate_json(pipe.recv_bytes(MAX_EVENT_BYTES))
    except ValidationError as error:
        raise ProtocolError(f"not an event: {error.error_count()} errors") from error
    except OSError as error:
        if pipe.readable:  # it died, perhaps in the middle of a word
            raise EOFError from error
        raise ProtocolError(f"longer than {MAX_EVENT_BYTES} bytes, or not a message") from error


def encode_request(request: Request) -> bytes:
    """The request as it goes down the pipe."""
    return json.dumps({"request": request}).encode()


def receive_request(pipe: Connection) -> Request:
    """The next request from the supervisor. Raises EOFError when it is gone."""
    try:
        return _Asking.model_validate_json(pipe.recv_bytes(MAX_REQUEST_BYTES)).request
    except OSError as error:  # a reset connection
        raise EOFError from error
