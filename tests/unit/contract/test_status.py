import pytest

from stillhouse.contract.status import (
    ACTIONS,
    AFTER_LOSS,
    HEEDED,
    LEASED,
    TERMINAL,
    TRANSITIONS,
    Action,
    Status,
    actions,
    may_follow,
    sources,
)


def test_the_graph_is_the_designs() -> None:
    edges = {f"{one} -> {other}" for one, following in TRANSITIONS.items() for other in following}
    assert edges == {
        "queued -> running", "queued -> paused", "queued -> cancelled", "queued -> cancelling", "queued -> failed",
        "running -> succeeded", "running -> failed", "running -> pausing", "running -> cancelling", "running -> queued",
        "pausing -> paused", "pausing -> cancelling", "pausing -> succeeded", "pausing -> failed",
        "paused -> queued", "paused -> cancelled",
        "cancelling -> cancelled", "cancelling -> succeeded", "cancelling -> failed",
        "cancelling -> queued",
    }


def test_every_status_has_its_row_in_every_table() -> None:
    assert set(TRANSITIONS) == set(ACTIONS) == set(Status)


def test_terminal_statuses_are_final_and_the_only_ones_that_are_retried() -> None:
    assert {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED} == TERMINAL
    assert {status for status in Status if ACTIONS[status] == {Action.RETRY}} == TERMINAL
    assert {status for status in Status if Action.RETRY in ACTIONS[status]} == TERMINAL


def test_every_status_can_reach_an_end() -> None:
    for start in Status:
        reached, frontier = {start}, {start}
        while frontier:
            frontier = {following for status in frontier for following in TRANSITIONS[status]} - reached
            reached |= frontier
        assert reached & TERMINAL, start


def test_after_a_loss_a_job_goes_where_the_graph_allows() -> None:
    assert {Status.RUNNING, Status.PAUSING, Status.CANCELLING} == LEASED
    assert all(may_follow(status, following) for status, following in AFTER_LOSS.items())


def test_whatever_may_be_cancelled_can_get_cancelled() -> None:
    for status in Status:
        if Action.CANCEL in ACTIONS[status]:
            assert status is Status.CANCELLING or {Status.CANCELLING, Status.CANCELLED} & TRANSITIONS[status]


def test_whatever_may_be_paused_or_resumed_gets_there() -> None:
    for status in Status:
        if Action.PAUSE in ACTIONS[status]:
            assert {Status.PAUSING, Status.PAUSED} & TRANSITIONS[status]
        if Action.RESUME in ACTIONS[status]:
            assert Status.QUEUED in TRANSITIONS[status]


def test_what_was_asked_for_is_no_error_where_it_is_so_already() -> None:
    assert set(HEEDED) == set(Action)
    for action, there in HEEDED.items():
        starts = [status for status in Status if action in ACTIONS[status] and status not in there]
        assert starts
        if there:
            assert all((there | TERMINAL) & TRANSITIONS[status] for status in starts)


def test_a_plan_can_only_be_cancelled_and_so_can_what_is_to_be_finished() -> None:
    assert {action for status in Status for action in actions(status, "plan")} == {Action.CANCEL}
    assert {action for status in set(Status) - TERMINAL for action in actions(status, keep="best")} == {Action.CANCEL}
    assert {action for status in TERMINAL for action in actions(status, keep="best")} == {Action.RETRY}


@pytest.mark.parametrize("following", list(Status))
def test_sources_turn_the_graph_around(following: Status) -> None:
    assert sources(following) == {status for status in Status if may_follow(status, following)}
