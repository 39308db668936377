from pathlib import Path

import pytest

from tests.fixtures.lessons import TEST, TRAIN, Lesson


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """A job on 96 labelled images, 40 more to test on, and a teacher."""
    lesson = Lesson(tmp_path)
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    lesson.write_teacher()
    return lesson
