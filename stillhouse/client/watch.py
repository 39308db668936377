"""Follow a job's events: streamed, resumed after a broken connection, polled where streaming is impossible."""

import logging
import random
import time
from collections.abc import Iterator
from http import HTTPStatus

import httpx
from httpx_sse import EventSource, ServerSentEvent
from pydantic import ValidationError

from stillhouse.client.connection import Connection, may_pass, parsed, succeeded
from stillhouse.client.errors import ServiceUnreachableError, StillhouseApiError, UnexpectedAnswerError
from stillhouse.contract.events import RecordedEvent
from stillhouse.contract.resources import Job, Page

# Seconds of silence after which a stream counts as dead; the service sends a comment more often.
STREAM_SILENCE = 45.0
POLL_SECONDS = 0.5
PAGE_SIZE = 200  # the most that the service gives
LONGEST_WAIT = 5.0
# Streams in a row that told nothing, while a page had news: something between us holds streams back.
_MUTE_STREAMS = 2

log = logging.getLogger(__name__)


def watch(connection: Connection, job_id: str, *, after: int = 0, patience: float = 120.0) -> Iterator[RecordedEvent]:
    """Each event with `seq` above `after`, as it happens, once, in order; ends when the job has ended.

    A service that cannot be reached is waited for; after `patience` seconds ServiceUnreachableError is raised.
    """
    return _Watch(connection, job_id, after, patience).events()


class _Watch:
    def __init__(self, connection: Connection, job_id: str, after: int, patience: float) -> None:
        self.connection = connection
        self.job_id = job_id
        self.path = f"/jobs/{job_id}/events"
        self.after = after
        self.patience = patience
        self.has_ended = False
        self.can_stream = True
        self.mute_streams = 0
        self.failures = 0
        self.lost_at = 0.0

    def events(self) -> Iterator[RecordedEvent]:
        if self.after:  # the job may have ended by then, and a stream of nothing would never say so
            yield from self._reaching(self._page())
        while not self.has_ended:
            if self.can_stream:
                yield from self._reaching(self._stream())
            if not self.has_ended:
                yield from self._reaching(self._page())

    def _reaching(self, source: Iterator[RecordedEvent]) -> Iterator[RecordedEvent]:
        """The events of a source; where it breaks, a wait before the next one."""
        try:
            yield from source
        except httpx.TransportError as error:
            self._wait_out(error, error)
        except StillhouseApiError as error:
            if not may_pass(error):
                raise
            self._wait_out(error, None)

    def _wait_out(self, error: Exception, broken: httpx.TransportError | None) -> None:
        if self.failures == 0:
            self.lost_at = time.monotonic()
        silence = time.monotonic() - self.lost_at
        if silence > self.patience:
            why = self.connection.explained(broken) if broken else error
            raise ServiceUnreachableError(f"gave up after {silence:.0f} s: {why}") from error
        if self.failures == 1:
            log.warning("lost the connection to %s; trying again", self.connection.url)
        self.failures += 1
        wait = min(LONGEST_WAIT, 0.1 * 2 ** min(self.failures, 10))
        # As one too many it waits as long as the service asks, and looks once more before it gives up.
        asked = error.retry_after if isinstance(error, StillhouseApiError) and error.is_one_too_many else None
        least = min(asked or 0.0, max(0.0, self.patience - silence))
        time.sleep(least + wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads watchers out, guards nothing

    def _stream(self) -> Iterator[RecordedEvent]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(self.after)}
        timeout = httpx.Timeout(10.0, read=STREAM_SILENCE)
        before = self.after
        self.mute_streams += 1
        with self.connection.http.stream("GET", self.path, headers=headers, timeout=timeout) as response:
            if not self._is_stream(response):
                return
            for frame in EventSource(response).iter_sse():
                self.failures = 0
                yield from self._frame(frame)
                if self.has_ended:
                    return
                if self.after > before:
                    self.mute_streams = 0

    def _is_stream(self, response: httpx.Response) -> bool:
        """Whether this is an event stream; one that something refuses to give is not asked for again."""
        if response.status_code == HTTPStatus.NO_CONTENT:
            self.has_ended = True
            return False
        if response.status_code not in {HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.NOT_IMPLEMENTED}:
            succeeded(response)
        self.can_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        return self.can_stream

    def _frame(self, frame: ServerSentEvent) -> Iterator[RecordedEvent]:
        if frame.event == "end":
            self.has_ended = True
        elif frame.data:  # a comment after an event decodes to an empty frame
            yield from self._fresh(_recorded(frame.data, self.path))

    def _fresh(self, recorded: RecordedEvent) -> Iterator[RecordedEvent]:
        """The event, unless it came before."""
        if recorded.seq > self.after:
            self.after = recorded.seq
            yield recorded
            self.has_ended = recorded.ends_job

    def _page(self) -> Iterator[RecordedEvent]:
        """What a plain request tells. Also the way on when a stream broke: it always gains something."""
        had_ended = parsed(Job, self._get(f"/jobs/{self.job_id}")).terminal
        page = parsed(Page[RecordedEvent], self._get(self.path, after=self.after, limit=PAGE_SIZE))
        self.failures = 0
        if page.data and self.mute_streams >= _MUTE_STREAMS:
            self.can_stream = False
        for recorded in page.data:
            yield from self._fresh(recorded)
        if not page.data and had_ended:
            self.has_ended = True
        elif not page.data:
            time.sleep(POLL_SECONDS)

    def _get(self, path: str, **params: int) -> httpx.Response:
        return succeeded(self.connection.http.get(path, params=params, headers={"Accept": "application/json"}))


def _recorded(text: str, path: str) -> RecordedEvent:
    try:
        return RecordedEvent.model_validate_json(text)
    except ValidationError as error:
        raise UnexpectedAnswerError(f"{path} sent an event without seq, time or type: {text[:200]}") from error
