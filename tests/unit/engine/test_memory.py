from pathlib import Path

import numpy as np
import pytest

from stillhouse.contract.failures import OutOfMemoryError
from stillhouse.contract.spec import AdamW, Mlp, Sgd, Training
from stillhouse.models import complete
from tests.fixtures.lessons import TRAIN, Lesson
from worker.engine import memory
from worker.engine.memory import available_bytes, check_training_memory, installed_bytes
from worker.engine.preflight import prepare


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1 MiB to spare."""
    (tmp_path / "meminfo").write_text("MemTotal:     9999 kB\nMemAvailable:     1024 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "used", "available"),
    [(None, None, 2**20), ("max", "5", 2**20), ("1000", "300", 700), ("1000", "2000", 0), ("9000000", "0", 2**20)],
)
def test_the_tighter_limit_counts(machine: Path, limit: str | None, used: str | None, available: int) -> None:
    if limit is not None and used is not None:
        (machine / "memory.max").write_text(f"{limit}\n")
        (machine / "memory.current").write_text(f"{used}\n")
    assert available_bytes() == available


@pytest.mark.parametrize(("limit", "installed"), [(None, 9999 * 1024), ("max", 9999 * 1024), ("1000", 1000)])
def test_a_control_group_has_no_more_than_it_is_given(machine: Path, limit: str | None, installed: int) -> None:
    if limit is not None:
        (machine / "memory.max").write_text(f"{limit}\n")
    assert installed_bytes() == installed


def test_where_nobody_tells_nothing_is_refused(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert available_bytes() is None
    assert installed_bytes() is None
    memory.check_memory(2**60, "a dream")


def test_this_machine_tells_how_much_it_has() -> None:
    assert (available_bytes() or 0) > 2**20


def test_moments_count(machine: Path) -> None:
    assert machine.exists()
    # 42,010 weights are 168,040 bytes: five copies fit into 1 MiB beside one moment, not beside two and an average.
    architecture = complete(Mlp(hidden=[1000]), input_shape=[31], num_classes=10)
    check_training_memory(architecture, Training(optimizer=Sgd()), param="/student")
    with pytest.raises(OutOfMemoryError, match="168,040 bytes") as caught:
        check_training_memory(architecture, Training(optimizer=AdamW(), ema_decay=0.9), param="/student")
    assert caught.value.param == "/student"


def test_a_student_of_half_a_terabyte_is_refused_before_it_is_built(lesson: Lesson) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        prepare(lesson.spec(student={"kind": "mlp", "hidden": [65_536] * 32}), lesson.inputs, "cpu")
    assert caught.value.param == "/student"


def test_data_that_would_not_fit_are_refused_before_they_are_decoded(
    lesson: Lesson, machine: Path
) -> None:
    assert machine.exists()
    lesson.write_npz(TRAIN, inputs=np.zeros((300, 4096), np.uint8), labels=np.arange(300) % 3)
    with pytest.raises(OutOfMemoryError) as caught:
        prepare(lesson.spec(), lesson.inputs, "cpu")
    assert caught.value.param == "/data/train"
