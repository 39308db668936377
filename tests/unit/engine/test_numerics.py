"""How a training computes: as asked, or as measured; and the same after a resume."""

import copy

import pytest
import torch
from torch import nn

from stillhouse.contract.events import Noted
from stillhouse.contract.status import Phase
from tests.fixtures.lessons import Lesson, asked_at, everything
from worker.engine import rehearsal
from worker.engine.course import Course
from worker.engine.loop import step
from worker.engine.numerics import Numerics
from worker.engine.requests import StopRequestedError

AUGMENTED = {"transforms": [{"kind": "flip"}]}
CNN = {"kind": "cnn", "channels": [4, 8], "dropout": 0.1}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("copied", [False, True])
def test_all_but_the_last_layer_compute_in_half_the_bits(*, copied: bool) -> None:
    numerics = Numerics("bfloat16", "channels_last", "cpu")
    model = numerics.place(network())
    if copied:
        model = copy.deepcopy(model)
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    inputs = torch.randn(5, 8)
    with numerics.forward():
        outputs = model(inputs)
        assert model.get_submodule("0")(inputs).dtype == torch.bfloat16
    assert seen == {"0": torch.bfloat16, "2": torch.float32}
    assert torch.allclose(outputs, network()(inputs), atol=0.02)
    assert model(inputs).dtype == torch.float32


def test_autocast_comes_back_when_the_last_layer_fails() -> None:
    numerics = Numerics("bfloat16", "channels_last", "cpu")
    model = numerics.place(network())
    with numerics.forward():
        with pytest.raises(RuntimeError):
            model.get_submodule("2")(torch.randn(5, 4))
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("precision", "weights"), [("bfloat16", torch.float32), ("float64", torch.float64)])
def test_a_job_trains_as_asked_and_gives_float32_weights(lesson: Lesson, precision: str, weights: torch.dtype) -> None:
    spec = lesson.spec(training={"precision": precision, "ema_decay": 0.9}, student=CNN)
    job = lesson.train(spec)
    state = job.keeper.trainings[Phase.DISTILLING]
    assert {parameter.dtype for parameter in state.parameters} == {weights}
    exact = everything(lesson.train(lesson.spec(training={"ema_decay": 0.9}, student=CNN), "exact"))
    rough = everything(job)
    assert exact.keys() == rough.keys()
    assert any(not torch.equal(rough[name].float(), exact[name]) for name in exact)
    for name, tensor in exact.items():
        assert torch.allclose(rough[name].float(), tensor.float(), atol=0.1), name


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[Numerics, float]:
    """Every step counts as large, and half precision as four times as fast."""
    asked: dict[Numerics, float] = {}

    def timed(course: Course, device: str) -> float:
        state = course.begin(device)
        step(course, state)
        asked[course.numerics] = 0.25 if course.numerics.precision == "bfloat16" else 1.0
        return asked[course.numerics]

    monkeypatch.setattr(rehearsal, "SMALL_STEP_FLOPS", 0)
    monkeypatch.setattr(rehearsal, "time_step", timed)
    monkeypatch.setattr(rehearsal, "has_fast_bfloat16", lambda _: True)
    return asked


def test_what_is_faster_is_taken_and_told(lesson: Lesson, measured: dict[Numerics, float]) -> None:
    job = lesson.job(lesson.spec(student=CNN))
    (note,) = [event for event in job.train(None) if isinstance(event, Noted) and event.code == "numerics"]
    assert note.data["precision"] == "bfloat16"
    assert len(note.data["seconds_per_step"]) == len({Numerics("float32", "contiguous", "cpu"), *measured}) == 3
    assert job.courses.numerics.precision == "bfloat16"


def test_small_steps_are_not_measured(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "has_fast_bfloat16", lambda _: True)
    job = lesson.train(lesson.spec(student=CNN))
    assert job.courses.numerics == Numerics("float32", "channels_last", "cpu")


def test_a_resumed_job_computes_as_it_began(
    lesson: Lesson, measured: dict[Numerics, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lesson.spec(student=CNN, training={"augmentation": AUGMENTED})
    whole = everything(lesson.train(spec))
    job = lesson.job(spec, "stopped", asked_at(7))
    with pytest.raises(StopRequestedError):
        list(job.train(None))
    measured.clear()
    monkeypatch.setattr(rehearsal, "has_fast_bfloat16", lambda _: False)
    resumed = lesson.job(spec, "resumed")
    list(resumed.train(job.scratch / "checkpoint.safetensors"))
    assert resumed.courses.numerics.precision == "bfloat16"
    for name, tensor in everything(resumed).items():
        assert torch.equal(tensor, whole[name]), name
