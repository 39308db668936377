"""Which limit of run time holds, and for what."""

from typing import Any

import pytest

from app.jobs.life import Claim
from app.settings import Settings
from stillhouse.contract.failures import MaxRuntimeExceededError
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Kind, Request
from tests.fixtures.jobs import raw_spec
from worker.limits import Limits


def limits(used: float, *, general: float = 0, kind: Kind = "job", **sections: object) -> Limits:
    raw: dict[str, Any] = raw_spec("art_" + "0" * 20, **sections)
    claim = Claim("job_1", kind, "ann", 2, 0, raw, "worker-1", None, used_seconds=used)
    return Limits(JobSpec.model_validate(raw), claim, Settings(max_runtime_seconds=general))


@pytest.mark.parametrize(
    ("own", "general", "most", "param", "advice"),
    [
        (60.0, 0, 60, "/max_runtime", "60 s, its max_runtime; raise it"),
        (60.0, 90, 60, "/max_runtime", "60 s, its max_runtime; raise it"),
        (None, 90, 90, None, "90 s, as long as this service lets any job run; train for fewer epochs, or ask"),
        (7200.0, 3600, 3600, None, "3,600 s, as long as this service"),  # set after the job was submitted
    ],
)
def test_the_lower_limit_holds_and_says_whose_it_is(
    own: float | None, general: float, most: float, param: str | None, advice: str
) -> None:
    before = limits(most - 30, max_runtime=own, general=general)
    before.check()
    assert before.request() is None
    after = limits(most, max_runtime=own, general=general)
    assert after.request() is Request.DRAIN
    with pytest.raises(MaxRuntimeExceededError, match=advice) as caught:
        after.check()
    assert caught.value.param == param


def test_the_best_is_kept_at_the_services_limit_too() -> None:
    kept = limits(90, general=90, on_max_runtime="keep_best")
    kept.check()
    assert kept.request() is Request.FINISH


@pytest.mark.parametrize(("kind", "own"), [("job", None), ("plan", 60.0)])
def test_what_has_no_limit_runs_on(kind: Kind, own: float | None) -> None:
    assert limits(10**9, kind=kind, max_runtime=own).request() is None
