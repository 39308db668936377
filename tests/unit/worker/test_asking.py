"""The trainer's questions: answered, or dropped when there is something more urgent."""

import threading
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stillhouse.contract.lending import Lent, Wanted
from stillhouse.contract.status import Request
from worker.borrowing import Borrower
from worker.orders import encode_lent, encode_request, receive_event
from worker.trainer import Line

WANTED = Wanted(keys=["0" * 64], num_to_make=1)
# A line whose supervisor is gone ends its whole process group after this time.
NEVER = 10.0**6


@pytest.fixture
def ends() -> tuple[Line, Connection]:
    """A trainer's line, and the supervisor's end of it."""
    ours, theirs = Pipe()
    return Line(theirs, NEVER), ours


def ask(line: Line) -> "Future[Lent]":
    """Ask on a thread of its own, which may wait for ever."""
    answer: Future[Lent] = Future()
    threading.Thread(target=lambda: answer.set_result(line.ask(WANTED)), daemon=True).start()
    return answer


def test_a_question_waits_for_its_answer(ends: tuple[Line, Connection]) -> None:
    line, supervisor = ends
    for lent in (Lent(to_make=["0" * 64]), Lent(makers=["job_1"])):
        answer = ask(line)
        assert receive_event(supervisor) == WANTED
        supervisor.send_bytes(encode_lent(lent))
        assert answer.result(timeout=20) == lent
    assert line.requested() is None


def test_a_request_comes_before_any_answer(ends: tuple[Line, Connection]) -> None:
    line, supervisor = ends
    answer = ask(line)
    receive_event(supervisor)
    supervisor.send_bytes(encode_request(Request.CANCEL))
    assert answer.result(timeout=20) == Lent()
    assert line.requested() is Request.CANCEL
    assert ask(line).result(timeout=20) == Lent()


def test_what_is_put_stays_where_it_was_written() -> None:
    store = Borrower("ann", {"art_1": "a" * 64}, lambda _: Lent())
    assert (store.owner, store.digest("art_1")) == ("ann", "a" * 64)
    assert store.put("0" * 64, Path("/scratch/x")) == Path("/scratch/x")
