"""The local service as real processes: it comes up whole, and nothing of it outlives its owner."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stillhouse import Client
from stillhouse.local import ComponentDiedError, LocalService, LocalServiceError, guardian, preconditions, running
from tests.fixtures.waiting import wait_until

ROOT = Path(__file__).parents[3]
NOOP = {"STILLHOUSE_ENGINE": "tests.fixtures.noop_engine"}
OWNER = """
import sys, time
from stillhouse.local import running
with running(sys.argv[1], environment={"STILLHOUSE_ENGINE": "tests.fixtures.noop_engine"}) as local:
    print(*[one.process.pid for one in local.processes.components], flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Longer than the path of a socket may be.
    return tmp_path_factory.mktemp("home") / ("long" * 30)


@pytest.fixture(scope="module")
def local(home: Path) -> Iterator[LocalService]:
    with running(home, environment=NOOP) as local:
        yield local


def test_it_is_ready_when_it_says_so(local: LocalService) -> None:
    assert httpx.get(f"{local.url}/readyz").status_code == 200
    with Client(local.url, local.key) as client:
        assert list(client.jobs()) == []
    local.check()


def test_it_leaves_its_address_and_a_private_key(local: LocalService, home: Path) -> None:
    assert (home / "url").read_text() == local.url
    assert (home / "token").read_text() == local.key
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_second_one_in_the_same_folder_is_refused(local: LocalService, home: Path) -> None:
    with pytest.raises(LocalServiceError, match=f"already runs in .* \\(process {os.getpid()}\\)"), running(home):
        pytest.fail("two services share one folder")
    local.check()


def test_everything_ends_and_the_key_stays(tmp_path: Path) -> None:
    with running(tmp_path, environment=NOOP) as local:
        pids = [component.process.pid for component in local.processes.components]
        key = local.key
    assert len(pids) == 3
    assert not any(guardian.is_alive(pid) for pid in pids)
    assert not (tmp_path / "url").exists()
    assert (tmp_path / "token").read_text() == key


def test_nothing_outlives_an_owner_that_was_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        assert all(guardian.is_alive(pid) for pid in pids)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(guardian.is_alive(pid) for pid in pids))


def test_a_dead_component_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with running(tmp_path, environment=NOOP) as local:
        components = list(local.processes.components)
        victim = next(one for one in components if one.name == "api")
        victim.process.kill()
        victim.process.wait()
        with pytest.raises(ComponentDiedError, match="the api was killed by SIGKILL") as caught:
            local.check()
    assert f"The end of {tmp_path / 'logs' / 'api.log'}:" in str(caught.value)
    assert "Uvicorn running" in str(caught.value)
    assert not any(guardian.is_alive(one.process.pid) for one in components)


def test_a_start_that_fails_is_told_and_gives_the_folder_back(tmp_path: Path) -> None:
    broken = {"STILLHOUSE_QUEUES": "not json"}
    with pytest.raises(ComponentDiedError, match="the migration ended with exit status 1") as caught:  # noqa: SIM117
        with running(tmp_path, environment=broken):
            pytest.fail("it started with settings that cannot be read")
    assert "queues" in str(caught.value)
    preconditions.take_home(tmp_path).close()
