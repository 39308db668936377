import pytest
import torch

from stillhouse.contract.events import Measured
from stillhouse.contract.spec import Architecture, Cnn, Mlp
from stillhouse.models import complete
from tests.fixtures.lessons import Lesson
from worker.engine import threads
from worker.engine.courses import Courses
from worker.engine.threads import count_step_flops, threads_for


@pytest.mark.parametrize(
    ("architecture", "shape", "forward"),
    [
        (Mlp(hidden=[64]), [1, 28, 28], 2 * (784 * 64 + 64 * 10)),
        (Mlp(hidden=[8], batch_norm=True), [5], 2 * (5 * 8 + 8 * 10)),
        (Cnn(channels=[4, 6]), [3, 8, 8], 2 * (64 * 9 * 3 * 4 + 16 * 9 * 4 * 6 + 6 * 10)),
    ],
)
def test_a_steps_work_is_counted(architecture: Architecture, shape: list[int], forward: int) -> None:
    fitted = complete(architecture, input_shape=shape, num_classes=10)
    assert count_step_flops(fitted, None, 128) == 3 * 128 * forward
    assert count_step_flops(fitted, fitted, 128) == 4 * 128 * forward


@pytest.mark.parametrize(("work", "number"), [(1e6, 1), (1e9, 2)])
def test_small_steps_get_one_thread_and_leave_the_rest_as_it_was(work: float, number: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(int(work)):
            assert torch.get_num_threads() == number
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("limit", "number"), [(1e12, 1), (0, 2)])
def test_a_job_trains_with_what_its_steps_are_worth(
    lesson: Lesson, limit: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SMALL_STEP_FLOPS", limit)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        events = lesson.job(lesson.spec()).train(None)
        seen = {torch.get_num_threads() for event in events if isinstance(event, Measured)}
        assert seen == {number}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_teacher_that_answers_every_batch_counts(lesson: Lesson) -> None:
    augmented = {"augmentation": {"transforms": [{"kind": "flip"}]}}

    def work(**training: object) -> int:
        job = lesson.job(lesson.spec(training=training))
        list(job.train(None))
        return Courses(job.spec, job.prepared, "cpu").student(job.teacher, job.keeper.soft_labels).step_flops

    assert work(**augmented) > 2 * work()
