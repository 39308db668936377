import pytest

from app.http.preferences import wait_seconds


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 10), ("wait=3", 3), ("wait=0", 0), ("WAIT=3", 3), ("wait = 3", 3), ('wait="3"', 3), ("wait=3; why=x", 3),
        ("wait=3, wait=5", 3), ("return=minimal, wait=3", 3), ("respond-async", 0), ("respond-async, wait=3", 3),
        ("wait=61", 60), ("wait=" + "9" * 5000, 60), ("wait=-1", 10), ("wait=1.5", 10), ("wait", 10), ("wait=٣", 10),
        ("handling=lenient", 10), (";=,,=;", 10),
    ],
)
def test_a_wait_is_understood_or_ignored(prefer: str, seconds: int) -> None:
    assert wait_seconds(prefer, usual=10, most=60) == seconds
