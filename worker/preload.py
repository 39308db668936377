"""Imported first by the forkserver, before the modules that every trainer inherits from it.

The forkserver outlives signals to its group, or nobody would learn how its children ended; a trainer sets both
signals back.
"""

import os
import signal
from pathlib import Path

from worker.version import CODE_VERSION

__all__ = ["CODE_VERSION", "FORKSERVER_PID", "num_threads_at_fork"]

FORKSERVER_PID = os.getpid()
_num_threads = 0


def _count_threads() -> None:
    global _num_threads  # noqa: PLW0603 - the child inherits it
    _num_threads = len(list(Path("/proc/self/task").iterdir()))


def num_threads_at_fork() -> int:
    """How many threads the forkserver had when it made this process: more than one, and a lock may be held for ever."""
    return _num_threads


signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.register_at_fork(before=_count_threads)
