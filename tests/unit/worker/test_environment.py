"""What a trainer may know of its environment."""

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


def test_threads_do_not_spin_and_nothing_phones_home() -> None:
    assert scrubbed({"OMP_WAIT_POLICY": "active"}) == {
        "OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1",
    }
