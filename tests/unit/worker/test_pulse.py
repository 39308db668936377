import os
import time
from pathlib import Path

from app.settings import Settings
from worker import pulse


def test_a_worker_is_well_while_it_makes_its_rounds(tmp_path: Path) -> None:
    settings = Settings(scratch_folder=tmp_path)
    assert "no worker" in str(pulse.problem(settings))
    pulse.beat(settings)
    assert pulse.problem(settings) is None
    long_ago = time.time() - settings.lease_seconds - 4 * settings.reap_seconds
    os.utime(tmp_path / "pulse", (long_ago, long_ago))
    assert "the last round was" in str(pulse.problem(settings))
