"""How long a request's body is waited for: a client that dribbles must not hold on to a file and a connection."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillhouse.contract.failures import RequestTimeoutError

# Bytes in a second. Each piece of a body buys as much time as it takes at this rate, up to the whole patience.
_SLOWEST = 500


class Patience:
    """Raises RequestTimeoutError where the body comes too slowly. Time that the application takes does not count."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a body that must come in time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = self.seconds
        has_more = True

        async def receive_in_time() -> Message:
            nonlocal left, has_more
            if not has_more:
                # From here on it only hears whether the client has gone.
                return await receive()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError as error:
                raise RequestTimeoutError from error
            bought = len(message.get("body", b"")) / _SLOWEST
            left = min(self.seconds, max(0.0, left - (time.monotonic() - begun)) + bought)
            has_more = message["type"] == "http.request" and message.get("more_body", False)
            return message

        await self.app(scope, receive_in_time, send)
