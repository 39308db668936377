"""Nobody outlives the process that it was started for."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.fixtures.waiting import wait_until
from worker.engine.tether import tethering

ROOT = Path(__file__).parents[3]
LAST = "from worker.engine.tether import tether; tether(); import time; print('held', flush=True); time.sleep(60)"
# As torchrun starts a rank: in a session of its own, where no signal to the group above reaches it.
FIRST = f"""
import subprocess, sys
from worker.engine.tether import tether
tether()
subprocess.run([sys.executable, "-c", {LAST!r}], start_new_session=True)
"""


def start(**more: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **tethering(), **more}
    return subprocess.Popen([sys.executable, "-c", FIRST], cwd=ROOT, env=environment, stdout=subprocess.PIPE)


def test_a_kill_reaches_every_process_below() -> None:
    with start() as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        (last,) = psutil.Process(first.pid).children()
        first.kill()
        wait_until(lambda: not last.is_running() or last.status() == psutil.STATUS_ZOMBIE, 10)


def test_who_comes_too_late_does_not_stay() -> None:
    with start(STILLHOUSE_PARENT_PID="1") as first:
        assert first.wait(30) == -9
