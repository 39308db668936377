"""The child process itself, ordered about by the test in the supervisor's place."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.contract.events import Failed, Finished, Progressed, Stopped
from stillhouse.contract.status import Request
from tests.fixtures.fleet import is_alive
from tests.fixtures.orders import order, trainer, words
from tests.fixtures.waiting import wait_until
from worker.version import digest_of_code

pytestmark = pytest.mark.usefixtures("forkserver")


def test_a_trainer_leads_a_group_of_its_own_and_dies_of_signals(tmp_path: Path) -> None:
    with trainer(order(tmp_path)) as child:
        next(words(child))
        assert os.getpgid(child.pid) == child.pid
        status = Path(f"/proc/{child.pid}/status").read_text()
        ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
        assert not ignored & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1))
        os.kill(child.pid, signal.SIGTERM)
        assert child.is_gone(10)
        assert child.end() == "was killed by SIGTERM"


def test_what_it_prints_goes_to_its_log(tmp_path: Path) -> None:
    with trainer(order(tmp_path, labels={"noop.steps": "2"})) as child:
        assert isinstance(list(words(child))[-1], Finished)
    begins, first, *_ = (tmp_path / "log").read_text().splitlines()
    assert json.loads(begins)["event"] == "The trainer begins."
    assert first == "counting from 0 to 2 on cpu"


def test_a_request_is_obeyed(tmp_path: Path) -> None:
    with trainer(order(tmp_path)) as child:
        heard = words(child)
        next(heard)
        child.ask(Request.DRAIN)
        assert list(heard)[-1] == Stopped(request=Request.DRAIN)
        assert child.is_gone(10)
        assert child.end() == "ended with exit code 0"


def test_the_end_of_the_pipe_means_checkpoint_and_end(tmp_path: Path) -> None:
    ordered = order(tmp_path, labels={"noop.steps": "2000", "noop.wait": "0.02", "noop.every": "5000"})
    with trainer(ordered) as child:
        heard = words(child)
        assert isinstance([next(heard) for _ in range(3)][-1], Progressed)
        child.hang_up()
        assert child.is_gone(10)
    newest = max(ordered.scratch.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(newest.read_text())[0] > 0


def test_an_orphan_that_does_not_listen_is_ended_in_time_with_its_children(tmp_path: Path) -> None:
    labels = {"noop.steps": "2000", "noop.wait": "0.02", "noop.deaf": "yes", "noop.helper": "yes"}
    with trainer(order(tmp_path, labels=labels, orphan_seconds=0.3)) as child:
        next(words(child))
        helper = int((tmp_path / "scratch" / "helper").read_text())
        assert is_alive(helper)
        child.hang_up()
        assert child.is_gone(10)
        wait_until(lambda: not is_alive(helper))


def test_another_version_of_the_code_is_refused(tmp_path: Path) -> None:
    with trainer(order(tmp_path, code_version="another")) as child:
        assert list(words(child)) == []
        assert child.is_gone(10)
    assert "the forkserver runs other code than its supervisor" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("engine", "reason"),
    [("tests.fixtures.nowhere", "No module named"), ("tests.fixtures.idle_engine", "did not preload")],
)
def test_an_engine_that_the_forkserver_did_not_load_is_refused(tmp_path: Path, engine: str, reason: str) -> None:
    with trainer(order(tmp_path, engine=engine)) as child:
        assert list(words(child)) == []
        assert child.is_gone(10)
    assert reason in (tmp_path / "log").read_text()


def test_an_engine_without_a_last_word_has_failed(tmp_path: Path) -> None:
    with trainer(order(tmp_path, labels={"noop.steps": "1", "noop.silent": "yes"})) as child:
        last = list(words(child))[-1]
    assert isinstance(last, Failed)
    assert (last.failure.code, last.failure.blame) == ("internal_error", "system")


def test_the_code_version_tells_changes(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "a.py").write_text("1")
    before = digest_of_code(tmp_path)
    (tmp_path / "worker" / "a.py").write_text("2")
    assert digest_of_code(tmp_path) != before


def test_a_forkserver_with_two_threads_is_refused(tmp_path: Path) -> None:
    ordered = order(tmp_path, engine="tests.fixtures.threaded_engine")
    code = (
        "import sys; from worker.child import Child, warm_up; from worker.orders import Order;"
        "warm_up('tests.fixtures.threaded_engine');"
        "child = Child(Order.model_validate_json(sys.argv[1])); child.is_gone(30); child.end()"
    )
    subprocess.run([sys.executable, "-c", code, ordered.model_dump_json()], check=True, timeout=60)
    assert "the forkserver had 2 threads when it forked" in (tmp_path / "log").read_text()
