"""What a trainer may know of its environment."""

import subprocess
import sys

import pytest

from worker.environment import scrubbed


@pytest.mark.parametrize("name", [
    "STILLHOUSE_DATABASE_URL", "STILLHOUSE_BOOTSTRAP_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN",
])
def test_credentials_are_left_out(name: str) -> None:
    assert name not in scrubbed({name: "secret"})


@pytest.mark.parametrize("name", ["PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "PYTHONPATH"])
def test_what_programs_need_stays(name: str) -> None:
    assert scrubbed({name: "value"})[name] == "value"


def test_a_worker_hides_its_memory_from_its_user() -> None:
    # PR_GET_DUMPABLE is 3.
    code = "import ctypes; from worker.environment import hide; hide(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "0\n"


def test_threads_do_not_spin_and_nothing_phones_home() -> None:
    assert scrubbed({"OMP_WAIT_POLICY": "active"}) == {
        "OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1",
    }


def test_a_worker_may_open_as_many_files_as_the_system_allows() -> None:
    code = (
        "import resource as r; from worker.environment import allow_many_files; most = r.getrlimit(r.RLIMIT_NOFILE)[1];"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, most)); allow_many_files();"
        "print(r.getrlimit(r.RLIMIT_NOFILE) == (most, most))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"
