"""The child processes of a local service: started with a log each, stopped in order, never left behind."""

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stillhouse.local import guardian
from stillhouse.local.errors import ComponentDiedError

TAIL_LINES = 15
_REAP_SECONDS = 5.0


@dataclass(frozen=True)
class Component:
    """A running part of the service."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_seconds: float

    def check(self) -> None:
        """Raise ComponentDiedError, with the end of its log, if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise ComponentDiedError(f"the {self.name} {how_it_ended(code)}.{quoted_tail(self.log)}")

    def stop(self) -> None:
        """Ask it to end, wait for it, and end what is left of its group by force."""
        guardian.tell(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        guardian.tell(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it by force."""
        guardian.tell(self.process.pid, signal.SIGKILL)
        self.process.wait(_REAP_SECONDS)


class Processes:
    """All components of one local service, and a guardian that outlives this process."""

    def __init__(self, logs: Path, *, folder: Path, lock: IO[str], stop_seconds: float) -> None:
        self.logs = logs
        self.folder = folder
        self.components: list[Component] = []
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(stop_seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            # It keeps the lock of the folder until the last component has ended.
            pass_fds=[lock.fileno()], start_new_session=True, cwd="/",
        )
        if self._guardian.stdin is None:
            raise RuntimeError("a process with stdin=PIPE has a stdin")
        self._told = self._guardian.stdin

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, seconds: float) -> None:
        """Run a command to its end; ComponentDiedError if it fails or takes longer than `seconds`."""
        component = self.start(name, command, environment, stop_seconds=1.0)
        try:
            code = component.process.wait(seconds)
        except subprocess.TimeoutExpired:
            component.kill()
            raise ComponentDiedError(
                f"the {name} did not end within {seconds:.0f} s.{quoted_tail(component.log)}"
            ) from None
        if code != 0:
            component.check()
        self._forget(component)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, stop_seconds: float
    ) -> Component:
        """Start a command in a session of its own, so that Ctrl-C at the terminal reaches only us."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        _keep_previous(log)
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=dict(environment), cwd=self.folder, start_new_session=True,
            )
        self._tell_guardian(f"watch {process.pid}")
        component = Component(name, process, log, stop_seconds)
        self.components.append(component)
        return component

    def check(self) -> None:
        """Raise ComponentDiedError if a component has ended."""
        for component in self.components:
            component.check()
        if self._guardian.poll() is not None:
            raise ComponentDiedError("the guardian, which stops everything if this process is killed, has ended.")

    def stop(self) -> None:
        """Stop all components, last started first, and then the guardian."""
        while self.components:
            self.components[-1].stop()
            self._forget(self.components[-1])
        self._dismiss_guardian()

    def kill(self) -> None:
        """Stop all components at once by force."""
        for component in reversed(self.components):
            component.kill()
        self.components.clear()
        self._dismiss_guardian()

    def _forget(self, component: Component) -> None:
        self.components.remove(component)
        self._tell_guardian(f"done {component.process.pid}")

    def _dismiss_guardian(self) -> None:
        with suppress(BrokenPipeError):
            self._told.close()
        self._guardian.wait()

    def _tell_guardian(self, line: str) -> None:
        with suppress(BrokenPipeError):  # `check` tells that it is gone
            self._told.write(f"{line}\n")
            self._told.flush()


def how_it_ended(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def quoted_tail(log: Path) -> str:
    """The last lines of a log, indented, with where the rest is."""
    with log.open(errors="replace") as file:
        lines = deque(file, maxlen=TAIL_LINES)
    if not lines:
        return f" It printed nothing ({log})."
    quote = "".join(f"    {line.rstrip()}\n" for line in lines)
    return f" The end of {log}:\n{quote}"


def wait_until(is_met: Callable[[], bool], processes: Processes, *, seconds: float, waiting_for: str) -> None:
    """Wait for a condition while every component lives; ComponentDiedError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_met():
        processes.check()
        if time.monotonic() > deadline:
            raise ComponentDiedError(
                f"{waiting_for} took longer than {seconds:.0f} s. The logs are in {processes.logs}"
            )
        time.sleep(0.05)


def _keep_previous(log: Path) -> None:
    """The log of the run before this one stays readable."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
