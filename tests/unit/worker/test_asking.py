"""The trainer's questions: answered, or dropped when there is something more urgent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
def asked() -> Iterator[tuple[Line, Connection, ThreadPoolExecutor]]:
    """A trainer's line, the supervisor's end of it, and a thread to ask on."""
    ours, theirs = Pipe()
    with ThreadPoolExecutor(1) as pool:
        yield Line(theirs, NEVER), ours, pool


Asked = tuple[Line, Connection, ThreadPoolExecutor]


def test_a_question_waits_for_its_answer(asked: Asked) -> None:
    line, supervisor, pool = asked
    for lent in (Lent(to_make=["0" * 64]), Lent(makers=["job_1"])):
        answer = pool.submit(line.ask, WANTED)
        assert receive_event(supervisor) == WANTED
        supervisor.send_bytes(encode_lent(lent))
        assert answer.result(timeout=20) == lent
    assert line.requested() is None


def test_a_request_comes_before_any_answer(asked: Asked) -> None:
    line, supervisor, pool = asked
    answer = pool.submit(line.ask, WANTED)
    receive_event(supervisor)
    supervisor.send_bytes(encode_request(Request.CANCEL))
    assert answer.result(timeout=20) == Lent()
    assert line.requested() is Request.CANCEL
    assert pool.submit(line.ask, WANTED).result(timeout=20) == Lent()


def test_what_is_put_stays_where_it_was_written() -> None:
    store = Borrower("ann", {"art_1": "a" * 64}, lambda _: Lent())
    assert (store.owner, store.digest("art_1")) == ("ann", "a" * 64)
    assert store.put("0" * 64, Path("/scratch/x")) == Path("/scratch/x")
