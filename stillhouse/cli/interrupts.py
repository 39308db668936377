"""Ctrl-C that is never lost."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


class Interrupts:
    """Remembers whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self._came = False

    def heeded(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until Ctrl-C was pressed; KeyboardInterrupt then."""
        for item in items:
            if self._came:
                raise KeyboardInterrupt
            yield item

    def take(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt, as a handler of the signal."""
        self._came = True
        raise KeyboardInterrupt


@contextmanager
def heeding_interrupts() -> Iterator[Interrupts]:
    """Within, Ctrl-C raises KeyboardInterrupt at once, and if that is lost, before the next of the heeded items.

    Python drops what is raised while a finaliser runs, and a dropped interrupt would leave the user watching on.
    """
    interrupts = Interrupts()
    before = signal.signal(signal.SIGINT, interrupts.take)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
