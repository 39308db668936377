"""How many streams are open at a time, of one key and in all, in this process."""

import threading
from collections import Counter
from collections.abc import AsyncIterable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stillhouse.contract.failures import TooManyStreamsError, UnavailableError


class Seats:
    """Counts open streams. Safe to share between threads."""

    def __init__(self, num: int, num_per_key: int) -> None:
        self._num = num
        self._num_per_key = num_per_key
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def num_taken(self) -> int:
        """Streams that are open now."""
        return self._taken.total()

    def take(self, key_id: str) -> None:
        """Take a seat. Raises TooManyStreamsError, or UnavailableError when the whole process has none left."""
        with self._lock:
            if self._taken[key_id] >= self._num_per_key:
                raise TooManyStreamsError(
                    f"{self._num_per_key} streams are open with this key; close some, or poll GET /jobs/ID instead."
                )
            if self.num_taken >= self._num:
                raise UnavailableError(f"All {self._num} streams are taken; try again in a moment, or poll.")
            self._taken[key_id] += 1

    def leave(self, key_id: str) -> None:
        """Give a seat back."""
        with self._lock:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]


class SeatedResponse(StreamingResponse):
    """A stream that holds a seat until it ends, however it ends."""

    def __init__(
        self, seats: Seats, key_id: str, content: AsyncIterable[bytes], *, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._seats = seats
        self._key_id = key_id
        seats.take(key_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._seats.leave(self._key_id)
