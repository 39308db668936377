"""Stops the processes of a local service whose parent is gone, even when the parent was killed with SIGKILL.

Run as a script with nothing but the standard library: `python -I -S guardian.py SECONDS`. It reads `watch PGID` lines
from its standard input, and at the end of the input, which comes when the parent ends however it ends, stops what is
left: last started first, politely, and after SECONDS by force.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path


def is_alive(leader: int) -> bool:
    """Whether a process runs. One that has ended counts as gone, even where nobody collects its exit status."""
    try:
        os.kill(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        state = Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # no /proc here, or it ended in this moment
        return Path("/proc/self").exists() is False
    return state not in {"Z", "X"}


def tell(group: int, number: int) -> None:
    """Send a signal to the group's leader, or by SIGKILL to all of it."""
    try:
        if number == signal.SIGKILL:
            os.killpg(group, number)
        else:
            os.kill(group, number)
    except (ProcessLookupError, PermissionError):
        return


def stop(group: int, seconds: float) -> None:
    """Ask a group's leader to end, wait, and end the whole group by force."""
    tell(group, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while is_alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    tell(group, signal.SIGKILL)


def groups_told(lines: Iterable[str]) -> Sequence[int]:
    """The groups to stop once the parent is gone, in the order in which they were started."""
    groups: list[int] = []
    for line in lines:
        word, _, number = line.strip().partition(" ")
        if word == "watch":
            groups.append(int(number))
        elif word == "done" and int(number) in groups:
            groups.remove(int(number))
    return groups


def main(seconds: float) -> None:
    """Wait for the parent's end, then stop what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in reversed(groups_told(sys.stdin)):
        stop(group, seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
