"""How many jobs a worker takes at once. A job that needs k devices gets k slots at once or none."""

import threading


class Slots:
    """Numbered slots: the number of a slot is the number of its device."""

    def __init__(self, num: int) -> None:
        self._free = set(range(num))
        self._lock = threading.Lock()
        self._was_refused = False

    @property
    def num_free(self) -> int:
        """How many slots nobody holds."""
        return len(self._free)

    def take(self, num: int = 1) -> tuple[int, ...] | None:
        """The lowest free slots, or None when there are not as many."""
        with self._lock:
            if len(self._free) < num:
                self._was_refused = True
                return None
            taken = tuple(sorted(self._free)[:num])
            self._free.difference_update(taken)
            return taken

    def release(self, taken: tuple[int, ...]) -> bool:
        """Give slots back; whether somebody was refused since the last release, and should be called again."""
        with self._lock:
            self._free.update(taken)
            was_refused, self._was_refused = self._was_refused, False
            return was_refused
