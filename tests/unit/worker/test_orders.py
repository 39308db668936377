"""What crosses the pipe: events whole, anything else refused."""

import os
import pickle
import struct
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stillhouse.contract.events import Noted, Progressed
from stillhouse.contract.lending import MAX_WANTED, Lent, Wanted
from stillhouse.contract.status import Phase, Request
from worker.orders import (
    MAX_EVENT_BYTES,
    MAX_REQUEST_BYTES,
    ProtocolError,
    encode_event,
    encode_lent,
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


def test_questions_and_answers_arrive_as_they_were_sent(ends: Ends) -> None:
    ours, theirs = ends
    wanted = Wanted(keys=["0" * 64, "f" * 64], num_to_make=1)
    theirs.send_bytes(encode_event(wanted))
    assert receive_event(ours) == wanted
    for lent in (Lent(), Lent(ready={"0" * 64: Path("/a")}, to_make=["f" * 64], makers=["job_1"], seconds_saved=2.0)):
        ours.send_bytes(encode_lent(lent))
        assert receive_request(theirs) == lent


def test_the_longest_answer_is_short_enough() -> None:
    path = Path("/" + "x" * 4095)  # the longest there is
    lent = Lent(ready={f"{number:064x}": path for number in range(MAX_WANTED)})
    assert len(encode_lent(lent)) <= MAX_REQUEST_BYTES


@pytest.mark.parametrize("garbage", [
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"type": "status", "status": "succeeded", "reason": ""}',
    b'{"type": "progress"}', b"[" * 100_000, pickle.dumps({"type": "note"}),
    b'{"type": "checkpoint", "phase": "distilling", "step": 1, "file": "../up"}',
    b'{"type": "checkpoint", "phase": "distilling", "step": 1, "file": "/etc/passwd"}',
    b'{"type": "wanted", "keys": [], "num_to_make": 1}', b'{"type": "wanted", "keys": ["x"], "num_to_make": 1}',
    b'{"type": "wanted", "keys": ["' + b"0" * 64 + b'"], "num_to_make": -1}',
    b'{"type": "wanted", "keys": [' + b",".join([b'"' + b"0" * 64 + b'"'] * 513) + b'], "num_to_make": 1}',
    b'{"type":"soft_labels","key":"../up","split":"","view":0,"shard":0,"num_rows":1,"seconds":1,"file":"x"}',
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
