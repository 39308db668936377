import pytest
import torch
from torch import Tensor, nn

from stillhouse.contract.events import Measured
from stillhouse.contract.spec import Architecture, Cnn, Mlp, Resnet, Torchvision, Transformers
from stillhouse.models import complete
from stillhouse.models.registry import KINDS, Kind
from tests.fixtures.lessons import Lesson
from tests.fixtures.networks import SMALL_VIT
from worker.engine import threads
from worker.engine.courses import Courses
from worker.engine.flops import count_flops
from worker.engine.threads import count_step_flops, threads_for


@pytest.mark.parametrize(
    ("architecture", "shape", "forward"),
    [
        (Mlp(hidden=[64]), [1, 28, 28], 2 * (784 * 64 + 64 * 10)),
        (Mlp(hidden=[8], batch_norm=True), [5], 2 * (5 * 8 + 8 * 10)),
        (Cnn(channels=[4, 6]), [3, 8, 8], 2 * (64 * 9 * 3 * 4 + 16 * 9 * 4 * 6 + 6 * 10)),
        (
            Resnet(depth=8, channels=[4, 6, 8]), [3, 8, 8],
            2 * 9 * (64 * (3 * 4 + 2 * 4 * 4) + 16 * (4 * 6 + 6 * 6) + 4 * (6 * 8 + 8 * 8))
            + 2 * (16 * 4 * 6 + 4 * 6 * 8 + 8 * 10),
        ),
        # Patches of 4x4 make 4 tokens and one for the class: embedding; then queries, keys, values, output, scores,
        # mixing, and the two layers behind them; then the head, on one token.
        (
            Transformers(model_type="vit", config=SMALL_VIT | {"num_hidden_layers": 1}), [1, 8, 8],
            2 * (4 * 16 * 24 + 5 * 24 * 24 * 4 + 2 * 5 * 5 * 24 + 5 * 24 * 48 * 2 + 24 * 10),
        ),
    ],
)
def test_a_steps_work_is_counted(architecture: Architecture, shape: list[int], forward: int) -> None:
    fitted = complete(architecture, input_shape=shape, num_classes=10)
    assert count_step_flops(fitted, None, 128) == 3 * 128 * forward
    assert count_step_flops(fitted, fitted, 128) == 4 * 128 * forward


def test_work_is_counted_for_a_model_that_only_runs_for_real() -> None:
    class Valued(nn.Module):
        """Asks a tensor for its value, which one without memory does not have."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.head(inputs * float(inputs.sum()))
            return logits

    registry = {**KINDS, "mlp": Kind(lambda *_, **__: Valued(), KINDS["mlp"].describe)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillhouse.models.registry.KINDS", registry)
        assert count_flops(complete(Mlp(), input_shape=[4], num_classes=3)) == 2 * 4 * 3


def test_work_is_counted_for_a_model_that_cannot_be_built_without_memory() -> None:
    fitted = complete(Torchvision(name="regnet_x_400mf"), input_shape=[3, 224, 224], num_classes=1000)
    # 400 million multiply-accumulates gave it its name.
    assert count_flops(fitted) / 2 == pytest.approx(400e6, rel=0.05)


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
