"""The guardian stops what a dead parent left: politely first, then by force."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from stillhouse.local import guardian
from tests.fixtures.waiting import wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
POLITE = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture(params=[STUBBORN, POLITE], ids=["stubborn", "polite"])
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_it_stops_what_it_was_told_to_watch(child: subprocess.Popen[str]) -> None:
    command = [sys.executable, "-I", "-S", guardian.__file__, "0.3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdin is not None
        watcher.stdin.write(f"watch {child.pid}\n")
        watcher.stdin.close()
        wait_until(lambda: not guardian.is_alive(child.pid))


def test_a_process_whose_status_nobody_collects_counts_as_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until(lambda: not guardian.is_alive(process.pid))


def test_what_was_done_with_is_left_alone() -> None:
    assert guardian.groups_told(["watch 5\n", "watch 7\n", "done 5\n", "watch 9\n", "done 4\n"]) == [7, 9]
