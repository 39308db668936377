"""The child process of one attempt: staged inputs in, events out. Its main holds nothing worth stealing.

It leads a process group of its own, sends events up the pipe and hears requests from it. When the pipe ends, the
supervisor has died: then the engine is asked to write its checkpoint, and a deadline ends the whole group before
the lease does.
"""

import errno
import faulthandler
import importlib
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, cast

from app.kit import logs
from stillhouse.contract.events import LAST_WORDS, Failed, PhaseStarted, TrainerEvent
from stillhouse.contract.failures import (
    Failure,
    InternalError,
    OutOfDeviceMemoryError,
    OutOfMemoryError,
    SandboxUnavailableError,
    StillhouseError,
    StorageFullError,
)
from stillhouse.contract.lending import LabelStore, Lent, Wanted
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Request
from worker.borrowing import Borrower
from worker.orders import Order, Word, encode_event, receive_request
from worker.sandbox import Room, confine
from worker.scratch import lock

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FULL = {errno.ENOSPC, errno.EDQUOT}

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the trainer asks of the module that computes."""

    def run(
        self,
        spec: JobSpec,
        inputs: Mapping[str, Path],
        scratch: Path,
        /,
        *,
        checkpoint: Path | None,
        device: str,
        requested: Callable[[], Request | None],
        store: LabelStore,
    ) -> Iterator[TrainerEvent]:
        """Do the job, from the checkpoint if there is one; ask now and then whether to stop."""

    def plan(
        self,
        spec: JobSpec,
        inputs: Mapping[str, Path],
        scratch: Path,
        /,
        *,
        device: str,
        requested: Callable[[], Request | None],
    ) -> Iterator[TrainerEvent]:
        """Run the job's preflight alone, and end with what it found."""


class Line:
    """The trainer's end of the pipe. Once the supervisor is gone, events go nowhere and the request is to drain."""

    def __init__(self, pipe: Connection, orphan_seconds: float) -> None:
        self._pipe = pipe
        self._orphan_seconds = orphan_seconds
        self._request: Request | None = None
        self._lent: Lent | None = None
        self._heard = threading.Condition()
        self._orphaned = threading.Event()
        threading.Thread(target=self._listen, name="requests", daemon=True).start()

    @property
    def is_orphaned(self) -> bool:
        """Whether the supervisor has died."""
        return self._orphaned.is_set()

    def requested(self) -> Request | None:
        """What the supervisor asked for, if anything."""
        return self._request

    def ask(self, wanted: Wanted) -> Lent:
        """Ask for soft labels and wait for the answer. Nothing is lent any more once the trainer is to stop."""
        with self._heard:
            self._lent = None
        self.send(wanted)
        with self._heard:
            self._heard.wait_for(lambda: self._lent is not None or self._is_to_stop)
            return Lent() if self._is_to_stop or self._lent is None else self._lent

    @property
    def _is_to_stop(self) -> bool:
        return self._request not in {None, Request.FINISH}

    def send(self, event: Word) -> None:
        """Tell the supervisor. Waits while it is busy. Raises ProtocolError for an event that is too long."""
        data = encode_event(event)
        if self.is_orphaned:
            return
        try:
            self._pipe.send_bytes(data)
        except OSError:
            self._orphan()

    def _listen(self) -> None:
        while True:
            try:
                self._hear(receive_request(self._pipe))
            except EOFError:
                self._orphan()
                return

    def _hear(self, word: Request | Lent) -> None:
        with self._heard:
            if isinstance(word, Lent):
                self._lent = word
            else:
                self._request = word
            self._heard.notify_all()

    def _orphan(self) -> None:
        if self._orphaned.is_set():
            return
        self._orphaned.set()
        log.warning("The supervisor died: checkpoint and end.")
        self._hear(Request.DRAIN)
        deadline = threading.Timer(self._orphan_seconds, end_group)
        deadline.daemon = True
        deadline.start()


def main(pipe: Connection, message: bytes) -> None:
    """Carry out the order."""
    _lead_group()
    order = Order.model_validate_json(message)
    _redirect_output(order.log)
    logs.configure(
        order.lines.format, order.lines.level, process="trainer", worker=order.lines.worker,
        request_id=order.lines.request_id, job_id=order.job_id, attempt=order.attempt,
    )
    held = lock(order.scratch)  # to the end: nobody sweeps the folder when the supervisor is gone
    _refuse_strange_forkserver(order)
    _limit_threads(order.threads)
    if order.kind == "plan":
        _be_the_first_to_go()
    log.info("The trainer begins.", extra={"device": order.device, "threads": order.threads})
    missing = _confine(order, {0, 1, 2, held, pipe.fileno()})
    line = Line(pipe, order.orphan_seconds)
    try:
        _refuse_to_do_without(order, missing)
        _train(order, line)
    except Exception as error:  # the edge of the process: whatever it was becomes the job's error
        log.exception("The trainer gave up.")
        line.send(Failed(failure=_failure(error)))
    if line.is_orphaned:
        end_group()


def end_group() -> None:
    """End this process and all that it started, at once."""
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def _train(order: Order, line: Line) -> None:
    engine = cast("Engine", sys.modules[order.engine])
    # As JSON, since strict validation takes a string for an enum there only.
    spec = JobSpec.model_validate_json(json.dumps(order.spec))
    if order.kind == "plan":
        events = engine.plan(spec, order.inputs, order.scratch, device=order.device, requested=line.requested)
    else:
        events = engine.run(
            spec, order.inputs, order.scratch,
            checkpoint=order.checkpoint, device=order.device, requested=line.requested,
            store=Borrower(order.owner, order.digests, line.ask),
        )
    for event in events:
        if isinstance(event, PhaseStarted):
            logs.from_now_on(phase=event.phase)
        line.send(event)
        if isinstance(event, LAST_WORDS):
            return
    raise InternalError("The engine ended without a last word.")


def _lead_group() -> None:
    os.setsid()
    # The forkserver ignores both, and what is ignored is inherited, also through exec.
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _redirect_output(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()


def _refuse_strange_forkserver(order: Order) -> None:
    # A module that fails to import is skipped there in silence.
    if order.engine not in sys.modules:
        importlib.import_module(order.engine)  # raises with the reason
        raise RuntimeError(f"the forkserver did not preload {order.engine}")
    preload = sys.modules["worker.preload"]
    if os.getpid() == preload.FORKSERVER_PID:
        raise RuntimeError("worker.preload was imported by the trainer, not by the forkserver")
    if preload.num_threads_at_fork() != 1:
        raise RuntimeError(f"the forkserver had {preload.num_threads_at_fork()} threads when it forked")
    if order.code_version != preload.CODE_VERSION:
        raise RuntimeError("the forkserver runs other code than its supervisor; restart the worker")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("the forkserver touched CUDA")


def _limit_threads(num_threads: int) -> None:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(num_threads)  # for processes that the engine starts
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(num_threads)


def _be_the_first_to_go() -> None:
    """Where memory runs out, the kernel ends this process before any that has trained for hours."""
    with suppress(OSError):  # not every container allows it
        _OOM_SCORE.write_text("1000", "ascii")


def _confine(order: Order, descriptors: set[int]) -> Mapping[str, str]:
    """What could not be put in force. Call before a second thread starts, and before a client's bytes are opened."""
    if order.sandbox == "off":
        return {}
    readable = [path for path in (*order.inputs.values(), order.checkpoint, order.lent) if path is not None]
    done = confine(Room(order.scratch, tuple(readable), order.device, descriptors))
    if done.missing:
        print(f"Sandbox: {done}.", file=sys.stderr)  # noqa: T201 - the attempt's log
    return done.missing


def _refuse_to_do_without(order: Order, missing: Mapping[str, str]) -> None:
    if order.sandbox == "required" and missing:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        raise SandboxUnavailableError(f"The worker must confine its trainers, and cannot here. Missing: {reasons}.")


def _failure(error: Exception) -> Failure:
    if isinstance(error, StillhouseError):
        return error.as_failure()
    if isinstance(error, MemoryError):
        return OutOfMemoryError().as_failure()
    if type(error).__name__ == "OutOfMemoryError":  # torch's own
        return OutOfDeviceMemoryError().as_failure()
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFullError("The worker's disk has no room for what the trainer writes.").as_failure()
    return InternalError(
        "The trainer met an error of its own; GET /jobs/{id}/logs (of a plan: GET /plans/{id}/logs) shows where."
    ).as_failure()
