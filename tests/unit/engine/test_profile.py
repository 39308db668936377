import pytest

from stillhouse.contract.status import Phase
from worker.engine.profile import Journey

EXPECTED = {Phase.SOFT_LABELS: 10.0, Phase.DISTILLING: 60.0, Phase.CONTROL: 20.0, Phase.EXPORTING: 10.0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journey(clock: Clock) -> Journey:
    return Journey(EXPECTED, clock)


def test_percent_is_of_the_whole_job_and_never_falls(journey: Journey) -> None:
    told = []
    for phase in Phase:
        journey.enter(phase, 4)
        told += [journey.tell(step).percent for step in range(5)]
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 100
    journey.enter(Phase.DISTILLING, 60)
    assert journey.tell(30).percent == pytest.approx(40)


def test_there_is_no_estimate_before_it_is_honest(journey: Journey, clock: Clock) -> None:
    journey.enter(Phase.DISTILLING, 60)
    clock.now += 0.9
    assert journey.tell(1).eta_seconds is None
    clock.now += 1.1
    assert journey.tell(0).eta_seconds is None  # no step is done
    # Half as fast as expected: what is left takes twice as long.
    assert journey.tell(1).eta_seconds == pytest.approx(2 * (59 + 20 + 10))


def test_an_estimate_after_a_resume_counts_what_this_attempt_did(journey: Journey, clock: Clock) -> None:
    journey.resume(EXPECTED, {Phase.DISTILLING: 33.0})
    journey.enter(Phase.DISTILLING, 60, done=30)
    clock.now += 10
    assert journey.tell(40).eta_seconds == pytest.approx(20 + 20 + 10)
    assert journey.seconds()[Phase.DISTILLING] == pytest.approx(43)


def test_samples_per_second_are_those_since_it_last_told(journey: Journey, clock: Clock) -> None:
    journey.enter(Phase.DISTILLING, 60)
    clock.now += 1
    assert journey.tell(1, 100).samples_per_second is None
    clock.now += 2
    assert journey.tell(2, 500).samples_per_second == pytest.approx(200)


def test_it_tells_at_most_four_times_per_second(journey: Journey, clock: Clock) -> None:
    journey.enter(Phase.DISTILLING, 60)
    told = 0
    for _ in range(1000):
        clock.now += 0.01
        if journey.is_due():
            journey.tell(1)
            told += 1
    assert 36 <= told <= 40


def test_time_is_booked_on_the_phase_in_which_it_passed(journey: Journey, clock: Clock) -> None:
    clock.now += 1
    journey.enter(Phase.SOFT_LABELS, 3)
    clock.now += 2
    journey.enter(Phase.DISTILLING, 3)
    clock.now += 4
    assert journey.seconds() == {Phase.PREFLIGHT: 1, Phase.SOFT_LABELS: 2, Phase.DISTILLING: 4}


def test_an_unplanned_job_has_a_percentage_all_the_same(clock: Clock) -> None:
    journey = Journey({}, clock)
    journey.enter(Phase.DISTILLING, 3)
    assert journey.tell(2).percent == 0
