from pathlib import Path

import pytest

from stillhouse.contract.report import Report
from tests.fixtures.lessons import TEST, TRAIN, Lesson
from worker.engine import pipeline
from worker.engine.export import Exported


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """A job on 96 labelled images, 40 more to test on, and a teacher."""
    lesson = Lesson(tmp_path)
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    lesson.write_teacher()
    return lesson


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the export, whose fresh process takes seconds and has tests of its own."""
    def only_report(*, report: Report, **_: object) -> Exported:
        return Exported(report, [])

    monkeypatch.setattr(pipeline, "export_bundle", only_report)
