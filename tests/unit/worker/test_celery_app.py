import pytest

from app.settings import Settings
from worker.celery_app import arguments


@pytest.mark.parametrize(
    ("served", "heard"),
    [(["cpu"], "cpu,plans"), (["gpu"], "gpu,plans-gpu"), (["cpu", "gpu"], "cpu,gpu,plans,plans-gpu")],
)
def test_plans_are_heard_beside_the_jobs_of_the_same_device(served: list[str], heard: str) -> None:
    words = arguments(Settings(queues=served, slots=3), "here")
    assert words[words.index("--queues") + 1] == heard
    assert words[words.index("--concurrency") + 1] == "4"
