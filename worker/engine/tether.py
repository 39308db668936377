"""Processes that die with the one that started them, whatever kills it."""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PARENT: Final = "STILLHOUSE_PARENT_PID"


def tethering() -> dict[str, str]:
    """What to add to the environment of a process that is to tether itself to this one."""
    return {_PARENT: str(os.getpid())}


def tether() -> None:
    """Have the kernel kill this process when the thread that started it ends.

    torchrun's ranks lead sessions of their own, so the signal that ends a trainer's group does not reach them.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[_PARENT]):  # it was gone before this
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ.update(tethering())
