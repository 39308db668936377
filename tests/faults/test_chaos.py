"""Ten seconds of chaos; `make chaos` takes minutes."""

from pathlib import Path

import pytest

from tests.faults import chaos
from tests.fixtures.recovery import Recovery


@pytest.mark.fault("all of this at random, for ten seconds", sees="every job succeeds, once")
def test_no_job_is_lost_or_doubled(folder: Path, recovery: Recovery) -> None:
    outcome = chaos.run(
        folder, chaos.embedded(folder), seed=4, seconds=10, num_jobs=40, on_calm=recovery.begins
    )
    recovery.ends()
    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.faults.total() >= 5


@pytest.mark.slow
@pytest.mark.fault(
    "all of this at random, for ten seconds, on PostgreSQL and S3, which fail as well", sees="every job succeeds, once"
)
def test_no_job_is_lost_or_doubled_on_postgres_and_s3(folder: Path, recovery: Recovery) -> None:
    with chaos.production() as backends:
        outcome = chaos.run(folder, backends, seed=4, seconds=10, num_jobs=40, on_calm=recovery.begins)
    recovery.ends()
    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.faults.total() >= 5
