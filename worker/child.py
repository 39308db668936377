"""The supervisor's hold on a trainer: made by the forkserver, watched by pidfd, killed with its whole group."""

import logging
import multiprocessing
import os
import select
import signal
import socket
import struct
import threading
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Final, cast

from stillhouse.contract.lending import Lent
from stillhouse.contract.status import Request
from worker import trainer
from worker.orders import Order, ProtocolError, encode_lent, encode_request

log = logging.getLogger(__name__)

_CONTEXT: Final = multiprocessing.get_context("forkserver")
# Starting a process polls all others, and two polls of one process lose its exit code.
_STARTING: Final = threading.Lock()
_TELL_SECONDS: Final = 1.0
_WARN_SECONDS: Final = 30.0
_SENDING_SECONDS: Final = 10.0
# What multiprocessing says when the forkserver died before it could tell.
_UNKNOWN: Final = 255


def warm_up(*engines: str) -> None:
    """Start the forkserver with these engines. Call while one thread runs, in a scrubbed environment.

    It is started again when it is found dead at the next trainer's start.
    """
    _CONTEXT.set_forkserver_preload(["worker.preload", "worker.trainer", *engines])
    forkserver.ensure_running()


class Child:
    """A running trainer, with the supervisor's end of its pipe."""

    def __init__(self, order: Order) -> None:
        """Start it. Raises OSError when the forkserver does not answer."""
        self.pipe, theirs = _CONTEXT.Pipe()
        _limit_sending(self.pipe)
        process = _CONTEXT.Process(target=trainer.main, args=(theirs, order.model_dump_json().encode()))
        try:
            with _STARTING:
                process.start()
        except (OSError, EOFError) as error:
            self.pipe.close()
            raise ConnectionError(f"the forkserver did not answer: {error!r}") from error
        finally:
            theirs.close()
        self._process = process
        self.pid = cast("int", process.pid)
        # Not Process.is_alive(): that asks the forkserver, and says no when the forkserver is dead.
        self._pidfd = _open_pidfd(self.pid)

    def ask(self, request: Request) -> None:
        """Send a request down. A trainer that is dead does not mind."""
        with suppress(OSError):
            self.pipe.send_bytes(encode_request(request))

    def answer(self, lent: Lent) -> None:
        """Send an answer down. A trainer that is dead does not mind. Raises ProtocolError when it does not read."""
        try:
            self.pipe.send_bytes(encode_lent(lent))
        except BlockingIOError as error:
            raise ProtocolError("it asked, and does not read the answer") from error
        except OSError:
            return

    def has_word(self) -> bool:
        """Wait until the trainer has sent something (or hung up), or is gone; whether there is anything to receive."""
        ends: list[Connection | int] = [self.pipe] if self._pidfd is None else [self.pipe, self._pidfd]
        # Both at once: what it sent before it died is still to be read. A grandchild may keep the pipe open.
        return self.pipe in wait(ends) or self.pipe.poll(0)

    def is_gone(self, timeout_seconds: float = 0.0) -> bool:
        """Whether the process has ended, waiting for it that long."""
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_seconds * 1000))

    def abort(self, timeout_seconds: float) -> None:
        """Have it print where each of its threads stands, which ends it; wait for that so long."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGABRT)
            self.is_gone(timeout_seconds)

    def end(self) -> str:
        """Kill what is left of its group, wait until its pid is gone, and tell how it ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._pidfd is not None:
            with suppress(ProcessLookupError):  # it may not have a group of its own yet
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        while not self.is_gone(_WARN_SECONDS):
            log.warning("trainer %d does not end although it was killed; its slot stays taken", self.pid)
        return self._ending()

    def hang_up(self) -> None:
        """End the conversation: whoever waits for a word gets the end of the pipe."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.pipe.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back the descriptors. Only after `end`, and when nobody listens any more."""
        self.pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        with suppress(ValueError), _STARTING:  # the forkserver, if it lives, has not told yet
            self._process.close()

    def _ending(self) -> str:
        with _STARTING:
            self._process.join(_TELL_SECONDS)
            code = self._process.exitcode
        if code is None or code == _UNKNOWN:
            return "ended in a way that nobody saw"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _limit_sending(pipe: Connection) -> None:
    """Never wait for long for a trainer that does not read what it is told."""
    seconds, rest = divmod(_SENDING_SECONDS, 1)
    with socket.socket(fileno=os.dup(pipe.fileno())) as line:
        line.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1_000_000))
        )


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # so short was its life
        return None
