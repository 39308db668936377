"""What crosses the pipe: events whole, anything else refused."""

import os
import pickle
import struct
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from stillhouse.contract.events import Noted, Progressed
from stillhouse.contract.status import Phase, Request
from worker.orders import (
    MAX_EVENT_BYTES,
    ProtocolError,
    encode_event,
    encode_request,
    receive_event,
    receive_request,
)

Ends = tuple[Connection, Connection]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, theirs


def test_events_arrive_as_they_were_sent(ends: Ends) -> None:
    ours, theirs = ends
    sent = Progressed(phase=Phase.DISTILLING, step=3, percent=12.5)
    theirs.send_bytes(encode_event(sent))
    assert receive_event(ours) == sent


@pytest.mark.parametrize("request_", list(Request))
def test_requests_arrive_as_they_were_sent(ends: Ends, request_: Request) -> None:
    ours, theirs = ends
    ours.send_bytes(encode_request(request_))
    assert receive_request(theirs) is request_


@pytest.mark.parametrize("garbage", [
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"type": "status", "status": "succeeded", "reason": ""}',
    b'{"type": "progress"}', b"[" * 100_000, pickle.dumps({"type": "note"}),
    b'{"type": "checkpoint", "phase": "distilling", "step": 1, "file": "../up"}',
    b'{"type": "checkpoint", "phase": "distilling", "step": 1, "file": "/etc/passwd"}',
])
def test_what_is_no_event_is_refused(ends: Ends, garbage: bytes) -> None:
    ours, theirs = ends
    theirs.send_bytes(garbage)
    with pytest.raises(ProtocolError):
        receive_event(ours)


@pytest.mark.parametrize("header", [
    struct.pack("!i", MAX_EVENT_BYTES + 1), struct.pack("!iQ", -1, 2**60), struct.pack("!i", -7),
])
def test_no_memory_is_taken_for_a_length_beyond_the_limit(ends: Ends, header: bytes) -> None:
    ours, theirs = ends
    os.write(theirs.fileno(), header)
    with pytest.raises(ProtocolError):
        receive_event(ours)


def test_an_end_in_the_middle_of_a_message_is_an_end(ends: Ends) -> None:
    ours, theirs = ends
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"{")
    theirs.close()
    with pytest.raises(EOFError):
        receive_event(ours)


def test_an_event_that_nobody_would_accept_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        encode_event(Noted(code="long", message="", data={"text": "x" * MAX_EVENT_BYTES}))


def test_a_supervisor_that_is_gone_is_the_end(ends: Ends) -> None:
    ours, theirs = ends
    ours.close()
    with pytest.raises(EOFError):
        receive_request(theirs)
