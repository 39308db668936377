"""What the supervisor may ask for while the engine runs."""

from collections.abc import Callable

from stillhouse.contract.status import Request

# Asked once per step; must answer at once.
Requested = Callable[[], Request | None]


class StopRequestedError(Exception):
    """The engine was asked to stop, and its last checkpoint holds everything."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.request = request
