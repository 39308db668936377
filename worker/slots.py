"""How many devices a worker has for jobs. A job that needs k devices gets k slots at once or none."""

import threading
from typing import Final


class Slots:
    """Numbered slots: the number of a slot is the number of its device."""

    def __init__(self, num: int) -> None:
        self.num: Final = num
        self._free = set(range(num))
        self._lock = threading.Lock()

    @property
    def num_free(self) -> int:
        """How many slots nobody holds."""
        return len(self._free)

    def take(self, num: int = 1) -> tuple[int, ...] | None:
        """The lowest free slots, or None when there are not as many."""
        with self._lock:
            if len(self._free) < num:
                return None
            taken = tuple(sorted(self._free)[:num])
            self._free.difference_update(taken)
            return taken

    def release(self, taken: tuple[int, ...]) -> None:
        """Give slots back. Whoever does looks for a job again, since others may have been refused meanwhile."""
        with self._lock:
            self._free.update(taken)
