"""The command line against the whole service, as processes of their own. The jobs only count."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse import Client
from stillhouse.local import LocalService, guardian
from tests.e2e.conftest import NOOP, command, environment_of
from tests.fixtures.noop_engine import count
from tests.fixtures.waiting import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submitted(stillhouse: Run, teacher: Path, small_mnist: Path) -> Callable[..., str]:
    """Submits a job with these labels; gives its id."""

    def submit(*labels: str, name: str = "counting") -> str:
        options = [option for label in labels for option in ("--label", label)]
        done = stillhouse(
            "submit", "--teacher", str(teacher), "--student", "mlp:64", "--data", str(small_mnist), "--name", name,
            *options,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return submit


def test_a_job_from_files_to_model(stillhouse: Run, submitted: Callable[..., str], tmp_path: Path) -> None:
    job = submitted("noop.steps=30")
    watched = stillhouse("watch", job)
    assert watched.returncode == 0, watched.stderr
    assert "running: claimed by a worker" in watched.stderr
    assert "succeeded: finished" in watched.stderr
    saved = stillhouse("download", job, "-o", "student.zip")
    assert (saved.returncode, saved.stdout) == (0, "student.zip\n")
    assert json.loads((tmp_path / "student.zip").read_text())["state"] == count(30)
    assert json.loads(stillhouse("report", job, "--json").stdout)["evaluated_on"] == "test"
    assert "counting from 0 to 30" in stillhouse("logs", job).stdout
    shown = json.loads(stillhouse("show", "--json").stdout)
    assert (shown["id"], shown["status"], shown["name"]) == (job, "succeeded", "counting")
    assert [one["id"] for one in json.loads(stillhouse("list", "--label", "noop.steps=30", "--json").stdout)] == [job]


def test_a_second_upload_of_the_same_bytes_is_the_same_content(stillhouse: Run, teacher: Path) -> None:
    told = [json.loads(stillhouse("upload", str(teacher), "--json").stdout) for _ in range(2)]
    assert told[0]["sha256"] == told[1]["sha256"]
    assert told[0]["kind"] == "teacher"


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(
    stillhouse: Run, submitted: Callable[..., str], counting: LocalService, tmp_path: Path
) -> None:
    job = submitted("noop.steps=2000", "noop.wait=0.05")
    with subprocess.Popen(
        command("watch", job), cwd=tmp_path, env=environment_of(counting.home), stderr=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stderr is not None
        told = ""
        while "distilling" not in told:
            told += watcher.stderr.readline()
        watcher.send_signal(signal.SIGINT)
        told += watcher.stderr.read()
    assert watcher.returncode == 130
    assert f"the job goes on. Come back: stillhouse watch {job}" in told
    with Client(counting.url, counting.key) as client:
        assert client.job(job).status == "running"
        assert stillhouse("cancel", job).returncode == 0
        assert client.job(job).wait(timeout=30).status == "cancelled"
    assert stillhouse("watch", job).returncode == 5
    again = stillhouse("cancel", job)
    assert (again.returncode, "illegal_action" in again.stderr) == (3, True)


def test_a_failed_job_fails_the_command(stillhouse: Run, submitted: Callable[..., str]) -> None:
    watched = stillhouse("watch", submitted("noop.die=user", "noop.die_at=7"))
    assert watched.returncode == 1
    assert "[diverged]" in watched.stderr


def test_a_file_that_is_no_checkpoint_is_refused(stillhouse: Run, tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_bytes(b"\x80\x04\x95 a pickle")
    refused = stillhouse("upload", "teacher.pt")
    assert refused.returncode == 3
    assert "[pickle_refused]" in refused.stderr


def test_a_misspelt_key_is_named_with_the_right_one(stillhouse: Run, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"student": {"kind": "mlp", "hiden": [64]}}')
    refused = stillhouse("submit", "job.json")
    assert refused.returncode == 3
    assert "student.hiden: unknown key `hiden`; did you mean `hidden`?" in refused.stderr


def test_keys_work_until_they_are_revoked(stillhouse: Run) -> None:
    made = json.loads(stillhouse("keys", "create", "ci", "--json").stdout)
    assert stillhouse("list", "--key", made["secret"]).returncode == 0
    assert stillhouse("keys", "revoke", made["id"]).returncode == 0
    refused = stillhouse("list", "--key", made["secret"])
    assert (refused.returncode, "[unauthenticated]" in refused.stderr) == (3, True)


@pytest.mark.embedded  # `stillhouse distill` starts its own service, on SQLite and a folder
def test_distill_starts_a_service_for_itself_and_stops_it(teacher: Path, small_mnist: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = subprocess.run(
        command(
            "distill", str(teacher), "--student", "mlp:64", "--data", str(small_mnist), "-o", "out.zip", "--label",
            "noop.steps=5",
        ),
        cwd=tmp_path, env=environment_of(home, **NOOP), capture_output=True, text=True, check=False, timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.zip").read_text())["steps"] == 5
    assert not (home / "url").exists()


@pytest.mark.embedded  # `stillhouse up` is SQLite and a folder
def test_up_ends_quietly_when_it_is_asked_to(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("up", "--port", "0"), cwd=tmp_path, env=environment_of(tmp_path / "home", **NOOP),
        stderr=subprocess.PIPE, text=True,
    ) as up:
        assert up.stderr is not None
        told = ""
        while "Ctrl-C stops it" not in told:
            line = up.stderr.readline()
            assert line, told
            told += line
        assert (tmp_path / "home" / "url").read_text() in told
        up.send_signal(signal.SIGTERM)
        up.stderr.read()
    assert up.returncode == 0
    assert not (tmp_path / "home" / "url").exists()
    wait_until(lambda: not guardian.is_alive(up.pid))
