"""A Ctrl-C that a finaliser swallowed is heeded all the same."""

import os
import signal
from collections.abc import Iterator

import pytest

from stillhouse.cli.interrupts import heeding_interrupts


class Finalised:
    """Interrupts its own process while it is finalised, where Python drops what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(100))  # signals are handled between two instructions


def items() -> Iterator[int]:
    yield 1
    thing = Finalised()
    del thing
    yield 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python tells that it dropped it
def test_a_dropped_interrupt_is_raised_before_the_next_item() -> None:
    with heeding_interrupts() as interrupts:
        heeded = interrupts.heeded(items())
        assert next(heeded) == 1
        with pytest.raises(KeyboardInterrupt):
            next(heeded)


def test_the_handler_before_is_set_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with heeding_interrupts() as interrupts:
        assert list(interrupts.heeded([1, 2])) == [1, 2]
    assert signal.getsignal(signal.SIGINT) is before
