"""What waits for a slow database is merged where that loses nothing, and kept in order otherwise."""

import threading

import pytest

from stillhouse.contract.events import CheckpointSaved, Measured, Noted, PhaseStarted, Progressed
from stillhouse.contract.status import Phase
from tests.fixtures.waiting import wait_until
from worker.orders import ProtocolError, Word
from worker.recorder import MAX_WAITING, MERGE_METRICS_ABOVE, Inbox


def progressed(step: int, phase: Phase = Phase.DISTILLING) -> Progressed:
    return Progressed(phase=phase, step=step, percent=0)


def measured(step: int, **values: float) -> Measured:
    return Measured(phase=Phase.DISTILLING, step=step, values=values or {"loss": step})


def noted(number: int) -> Noted:
    return Noted(code="n", message=str(number))


def taken(*events: Word) -> list[Word]:
    inbox = Inbox()
    for event in events:
        inbox.put(event)
    return inbox.take(0)[0]


def flood(inbox: Inbox, num_events: int) -> None:
    for number in range(num_events):
        inbox.put(noted(number))


def test_only_the_newest_progress_of_a_phase_is_kept() -> None:
    teacher = progressed(9, Phase.TEACHER)
    note = noted(1)
    assert taken(teacher, progressed(1), note, progressed(2)) == [teacher, note, progressed(2)]


def test_other_events_are_all_kept_in_order() -> None:
    events: list[Word] = [
        PhaseStarted(phase=Phase.DISTILLING), noted(1), noted(1), measured(1), measured(2),
        CheckpointSaved(phase=Phase.DISTILLING, step=2, file="a"),
        CheckpointSaved(phase=Phase.DISTILLING, step=2, file="b"),
    ]
    assert taken(*events) == events


def test_many_metrics_are_thinned_to_the_newest_values() -> None:
    many = [measured(step, loss=step) for step in range(MERGE_METRICS_ABOVE)]
    got = taken(*many, measured(1000, learning_rate=0.5), measured(1001, loss=7.0))
    assert got[:-1] == many[:-1]
    assert got[-1] == measured(1001, loss=7.0, learning_rate=0.5)


def test_a_flood_waits_until_something_is_taken() -> None:
    inbox, num_events = Inbox(), MAX_WAITING + 10
    thread = threading.Thread(target=flood, args=(inbox, num_events))
    thread.start()
    got: list[Word] = []

    def take_all() -> bool:
        events, _ = inbox.take(0.1)
        assert len(events) <= MAX_WAITING
        got.extend(events)
        return len(got) == num_events

    wait_until(take_all)
    thread.join()
    assert [event.message for event in got if isinstance(event, Noted)] == [str(number) for number in range(num_events)]


def test_whoever_floods_is_let_go_when_nothing_more_is_wanted() -> None:
    inbox = Inbox()
    thread = threading.Thread(target=flood, args=(inbox, MAX_WAITING + 1))
    thread.start()
    inbox.end()
    thread.join(10)
    assert not thread.is_alive()


def test_a_broken_protocol_is_told_after_what_came_before() -> None:
    inbox = Inbox()
    inbox.put(noted(1))
    inbox.end(ProtocolError("garbage"))
    assert inbox.take(0) == ([noted(1)], False)
    with pytest.raises(ProtocolError, match="garbage"):
        inbox.take(0)


def test_the_end_is_told_with_the_last_events() -> None:
    inbox = Inbox()
    inbox.put(noted(1))
    inbox.end()
    assert inbox.take(0) == ([noted(1)], True)
