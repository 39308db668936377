"""Whole jobs through the engine's one entry."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.contract.events import (
    LAST_WORDS,
    TRAINER_EVENT,
    Finished,
    Measured,
    Noted,
    PhaseStarted,
    Progressed,
    Stopped,
    TrainerEvent,
)
from stillhouse.contract.failures import DivergedError, InvalidSpecError, OutOfMemoryError
from stillhouse.contract.report import Report
from stillhouse.contract.spec import RECIPES, JobSpec, Mlp, Resnet
from stillhouse.contract.status import Phase, Request
from stillhouse.models import build, load_checkpoint, save_checkpoint
from tests.fixtures.lessons import TEACHER, TEST, TRAIN, Lesson, asked_at, never
from worker.engine import course, loop, pipeline
from worker.engine.courses import Courses
from worker.engine.objectives import Loss, Views
from worker.engine.profile import Journey
from worker.engine.state import TrainingState
from worker.engine.teachers import NetworkTeacher


def run(lesson: Lesson, spec: JobSpec, checkpoint: Path | None = None) -> list[TrainerEvent]:
    scratch = lesson.folder / "run"
    scratch.mkdir(exist_ok=True)
    return list(pipeline.run(spec, lesson.inputs, scratch, checkpoint=checkpoint, device="cpu", requested=never))


def phases(events: list[TrainerEvent]) -> list[Phase]:
    return [event.phase for event in events if isinstance(event, PhaseStarted)]


def report_of(events: list[TrainerEvent]) -> Report:
    last = events[-1]
    assert isinstance(last, Finished)
    return last.report


def test_a_job_runs_from_files_to_a_proven_bundle(lesson: Lesson) -> None:
    events = run(lesson, lesson.spec(training={"epochs": 25, "optimizer": {"kind": "adamw", "learning_rate": 0.02}}))
    assert phases(events) == [
        Phase.PREFLIGHT, Phase.SOFT_LABELS, Phase.DISTILLING, Phase.CONTROL, Phase.EVALUATING, Phase.EXPORTING
    ]
    assert [type(event) for event in events if isinstance(event, LAST_WORDS)] == [Finished]
    last = events[-1]
    assert isinstance(last, Finished)
    assert {file.role for file in last.files} == {"bundle", "safetensors", "onnx", "report_html"}
    assert all((lesson.folder / "run" / file.file).is_file() for file in last.files)
    report = last.report
    assert [subject.name for subject in report.subjects] == ["teacher", "student", "control"]
    assert report.evaluated_on == "test"
    assert report.num_train_samples_seen == 25 * 4 * 16  # 72 samples are 4 batches of 16
    control = report.subject("control")
    assert control is not None
    assert control.scores.accuracy is not None
    assert control.scores.accuracy > 0.9
    for event in events:  # as the pipe carries them
        assert TRAINER_EVENT.validate_json(event.model_dump_json()) == event


@pytest.mark.usefixtures("unexported")
def test_the_report_tells_the_exported_weights_and_the_last_ones(lesson: Lesson) -> None:
    spec = lesson.spec(training={"epochs": 6, "optimizer": {"kind": "adamw", "learning_rate": 0.3}})
    events = run(lesson, spec)
    report = report_of(events)
    student = report.subject("student")
    assert student is not None
    accuracies = {
        event.step: event.values["validation.accuracy"] for event in events
        if isinstance(event, Measured) and event.phase == Phase.DISTILLING and "validation.accuracy" in event.values
    }
    assert sorted(accuracies) == [4, 8, 12, 16, 20, 24]
    assert accuracies[student.selected_step or 0] == max(accuracies.values())
    assert student.last_step == 24
    assert student.validation_scores is not None
    assert student.validation_scores.accuracy == pytest.approx(max(accuracies.values()))
    assert student.final_scores is not None
    assert student.scores.agreement is not None
    names = {curve.name for curve in report.curves}
    assert {"distilling/loss", "distilling/loss.kl", "distilling/loss.cross_entropy", "control/loss",
            "distilling/learning_rate", "distilling/validation.accuracy", "distilling/validation.agreement",
            "distilling/validation.loss"} <= names
    assert {part.name: part.num_samples for part in report.splits} == {"train": 72, "validation": 24, "test": 40}
    assert set(report.phase_seconds) == {
        "preflight", "soft_labels", "distilling", "control", "evaluating", "exporting"
    }


@pytest.mark.usefixtures("unexported")
def test_unlabelled_data_teach_by_the_teacher_alone(lesson: Lesson) -> None:
    lesson.write_blobs(TRAIN, 96, seed=0, labelled=False)
    lesson.write_blobs(TEST, 40, seed=1, labelled=False)
    data = {"train": {"artifact": TRAIN, "labels": None}, "test": {"artifact": TEST, "labels": None}}
    training = {"epochs": 40, "optimizer": {"kind": "adamw", "learning_rate": 0.02}}
    events = run(lesson, lesson.spec(data=data, training=training))
    assert Phase.CONTROL not in phases(events)
    report = report_of(events)
    student = report.subject("student")
    assert student is not None
    assert student.scores.accuracy is None
    assert student.scores.agreement is not None
    assert student.scores.agreement > 0.8
    assert report.selection.metric == "agreement"
    assert report.gain is None
    losses = [event.values for event in events if isinstance(event, Measured) and "loss" in event.values]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert "loss.cross_entropy" not in losses[0]


@pytest.mark.usefixtures("unexported")
def test_a_teacher_is_trained_first_where_asked(lesson: Lesson) -> None:
    teacher = {
        "kind": "train", "architecture": {"kind": "cnn", "channels": [8]},
        "training": {"epochs": 15, "batch_size": 16, "optimizer": {"kind": "adamw", "learning_rate": 0.02}},
    }
    events = run(lesson, lesson.spec(teacher=teacher))
    assert phases(events)[1:4] == [Phase.TEACHER, Phase.SOFT_LABELS, Phase.DISTILLING]
    found = report_of(events).subject("teacher")
    assert found is not None
    assert found.scores.accuracy is not None
    assert found.scores.accuracy > 0.9
    assert found.last_step == 60
    assert found.selected_step is not None


@pytest.mark.usefixtures("unexported")
def test_without_a_test_split_the_validation_split_is_reported_as_such(lesson: Lesson) -> None:
    report = report_of(run(lesson, lesson.spec(data={"test": None}, control=False)))
    assert report.evaluated_on == "validation"
    assert [subject.name for subject in report.subjects] == ["teacher", "student"]


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("metric", ["loss", "agreement", "accuracy"])
def test_every_metric_can_select(lesson: Lesson, metric: str) -> None:
    report = report_of(run(lesson, lesson.spec(training={"selection_metric": metric})))
    assert report.selection.metric == metric


@pytest.mark.usefixtures("unexported")
def test_augmented_views_are_labelled_by_the_teacher_as_they_come(lesson: Lesson) -> None:
    """A student that copies its teacher's logits on shifted views can only do so if it is shown the views' own."""
    augmentation = {"transforms": [{"kind": "shift", "pixels": 1}]}
    objective = {"terms": [{"kind": "mse"}]}
    job = lesson.job(lesson.spec(training={"augmentation": augmentation}, objective=objective))
    list(job.train(None))
    assert set(job.keeper.soft_labels) == {"validation", "test"}
    courses = Courses(job.spec, job.prepared, "cpu")
    feed = courses.student(job.teacher, job.keeper.soft_labels).feed
    teacher = job.teacher
    assert isinstance(teacher, NetworkTeacher)
    batch = feed(torch.arange(8), 3)
    assert batch.teacher is not None
    raw = job.prepared.dataset.train.samples.arranged[:8]
    unmoved = teacher.module(teacher.preprocessing.normalize(raw))
    assert not torch.allclose(batch.teacher, unmoved)
    student_view, teacher_view = job.prepared.dataset.preprocessing.normalization, teacher.preprocessing
    pixels = batch.inputs * student_view.std[0] + student_view.mean[0]  # 0 to 1 again
    seen = teacher_view.normalize((pixels * 255).round())
    assert torch.allclose(batch.teacher, teacher.module(seen), atol=1e-4)


@pytest.mark.usefixtures("unexported")
def test_progress_never_goes_back_and_ends_at_the_end(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journey, "is_due", lambda _: True)
    events = run(lesson, lesson.spec())
    told = [event for event in events if isinstance(event, Progressed)]
    percents = [event.percent for event in told]
    assert len(told) > 30
    assert percents == sorted(percents)
    assert 0 < percents[0] < percents[-1] <= 100
    assert {event.phase for event in told} >= {Phase.SOFT_LABELS, Phase.DISTILLING, Phase.CONTROL}


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("log_every", [1, 5, 1000])
def test_a_loss_that_becomes_nan_ends_the_job_at_its_step(
    lesson: Lesson, log_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However rarely the loop looks: at step 11 of 12 the next look is the last."""
    monkeypatch.setattr(course.Course, "log_steps", log_every)
    calls = iter(range(1, 10**9))
    plain = Loss.__call__

    def poisoned(self: Loss, views: Views, progress: float) -> list[torch.Tensor]:
        values = plain(self, views, progress)
        return [value * torch.nan for value in values] if next(calls) == 4 + 11 + 2 else values

    monkeypatch.setattr(Loss, "__call__", poisoned)  # 4 calls in preflight, 2 on validation after epochs 1 and 2
    with pytest.raises(DivergedError) as caught:
        run(lesson, lesson.spec())
    assert caught.value.step == 11


def test_a_learning_rate_that_is_too_high_diverges_and_never_succeeds(lesson: Lesson) -> None:
    training = {"optimizer": {"kind": "sgd", "learning_rate": 100.0, "momentum": 0.99}, "epochs": 40}
    student = {"kind": "mlp", "hidden": [16] * 6}
    spec = lesson.spec(training=training, student=student, objective={"terms": [{"kind": "mse"}]})
    with pytest.raises(DivergedError) as caught:
        run(lesson, spec)
    assert caught.value.step is not None
    assert 0 < caught.value.step < 100


def test_weights_that_the_last_step_broke_are_not_reported(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loop.step

    def breaking(of: course.Course, state: TrainingState) -> None:
        plain(of, state)
        if state.step == of.total_steps:
            with torch.no_grad():
                state.parameters[0].fill_(torch.inf)

    monkeypatch.setattr(loop, "step", breaking)
    with pytest.raises(DivergedError) as caught:
        run(lesson, lesson.spec())
    assert caught.value.step == 12


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"), (torch.OutOfMemoryError("CUDA out of memory"), "out_of_device_memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "out_of_memory",
        ),
    ],
)
def test_running_out_of_memory_has_its_own_code(
    lesson: Lesson, error: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "step", failing)
    with pytest.raises(OutOfMemoryError) as caught:
        run(lesson, lesson.spec())
    assert caught.value.code == code


def test_other_errors_of_torch_stay_what_they_are(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(loop, "step", failing)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(lesson, lesson.spec())


def resumed_after(lesson: Lesson, call: int, folder: str) -> tuple[list[TrainerEvent], list[TrainerEvent]]:
    spec, scratch = lesson.spec(), lesson.folder / folder
    scratch.mkdir()
    inputs: Mapping[str, Path] = lesson.inputs
    first = list(
        pipeline.run(spec, inputs, scratch, checkpoint=None, device="cpu", requested=asked_at(call, Request.DRAIN))
    )
    return first, run(lesson, spec, scratch / "checkpoint.safetensors")


@pytest.mark.usefixtures("unexported")
def test_a_stop_at_any_request_ends_in_the_same_report(lesson: Lesson) -> None:
    whole = report_of(run(lesson, lesson.spec()))
    stops = 0
    for call in (1, 3, 17, 28):
        first, second = resumed_after(lesson, call, f"stopped-{call}")
        stops += isinstance(first[-1], Stopped)
        report = report_of(second)
        assert told(report) == told(whole)
    assert stops == 4


def told(report: Report) -> Any:  # noqa: ANN401 - JSON
    """The report without what differs from run to run."""
    content = json.loads(report.model_dump_json(exclude={"created_at", "phase_seconds", "speed_ratio"}))
    for subject in content["subjects"]:
        del subject["latency"]
    return content


def test_the_exported_weights_are_the_selected_ones(lesson: Lesson) -> None:
    spec = lesson.spec(export={"formats": ["safetensors"]}, control=False)
    run(lesson, spec)
    exported = load_checkpoint(lesson.folder / "run" / "export" / "model.safetensors")
    reference = lesson.train(spec, "reference").keeper.trainings[Phase.DISTILLING].selected
    for name, tensor in exported.model.state_dict().items():
        np.testing.assert_array_equal(tensor, reference[name])


DERIVED = {"kind": "layers", "keep": {"layer1": [0], "layer2": [0], "layer3": [0]}}
RESNET = {"kind": "resnet", "depth": 14, "channels": [4, 4, 8]}


@pytest.mark.parametrize("taught_first", [False, True])
def test_a_student_made_of_its_teacher_begins_with_what_the_teacher_learned(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch, *, taught_first: bool
) -> None:
    architecture = Resnet.model_validate(RESNET)
    lesson.write_teacher(architecture)
    teacher: dict[str, Any] = {"kind": "checkpoint", "artifact": TEACHER}
    if taught_first:
        teacher = {"kind": "train", "architecture": RESNET, "training": {"epochs": 2, "batch_size": 16}}
    begun: list[dict[str, torch.Tensor]] = []
    plain = course.Course.begin

    def watched(of: course.Course, device: str) -> TrainingState:
        state = plain(of, device)
        if of.phase != Phase.TEACHER:
            begun.append({name: tensor.clone() for name, tensor in state.model.state_dict().items()})
        return state

    monkeypatch.setattr(course.Course, "begin", watched)
    job = lesson.train(lesson.spec(teacher=teacher, student=DERIVED))
    assert job.teacher.module is not None
    learned = job.teacher.module.state_dict()
    student, control = begun[-2:]  # those before are rehearsals
    assert all(torch.equal(student[name], control[name]) for name in student)
    for name in ("layer1.0.conv1.weight", "layer3.0.bn2.running_var", "fc.weight"):
        assert torch.equal(student[name], learned[name]), name


def test_a_student_begins_with_weights_that_were_uploaded(lesson: Lesson) -> None:
    architecture = Mlp(hidden=[6], input_shape=[1, 8, 8], num_classes=3)
    torch.manual_seed(11)
    model = build(architecture, input_shape=[1, 8, 8], num_classes=3)
    first = f"art_{'first':0<20}"
    lesson.inputs[first] = lesson.folder / "first.safetensors"
    save_checkpoint(lesson.inputs[first], model, architecture, None)
    job = lesson.job(lesson.spec(initial_weights=first))
    events = job.train(None)
    while not any(state.step for state in job.keeper.trainings.values()):
        next(events)
    begun = job.courses.student(job.teacher, job.keeper.soft_labels).begin("cpu").model.state_dict()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in begun.items())


# Recipes


@pytest.mark.usefixtures("unexported")
def test_a_named_recipe_is_trained_and_told(lesson: Lesson) -> None:
    events = run(lesson, lesson.spec(recipe="augmented_views", training={"epochs": 2}))
    told = report_of(events).recipe
    assert told is not None
    assert (told.name, told.overrides) == ("augmented_views", ["/training/epochs", "/training/batch_size"])
    assert [(term["kind"], term["temperature"]) for term in told.objective["terms"]] == [("kl", 4.0)]
    assert [transform["kind"] for transform in told.training["augmentation"]["transforms"]] == ["affine"]
    notes = {event.code: event for event in events if isinstance(event, Noted)}
    assert notes["recipe"].data == told.model_dump(mode="json")
    assert notes["recipe"].message == (
        "Recipe augmented_views; the spec gives /training/epochs, /training/batch_size itself."
    )
    assert notes["soft_labels"].data == {"mode": "stored", "views": 2}  # one for each epoch that there is
    assert notes["soft_labels"].message.endswith("as the recipe asks.")


def test_a_recipe_trains_as_its_parts_written_out_do(lesson: Lesson) -> None:
    recipe = RECIPES["augmented_views"]
    assert recipe.soft_labels is not None
    training = {"epochs": 2, "batch_size": 16}
    named = lesson.train(lesson.spec(recipe="augmented_views", training=training))
    written = lesson.train(lesson.spec(
        objective=recipe.objective.model_dump(), soft_labels=recipe.soft_labels.model_dump(),
        training=recipe.training.model_dump() | training,
    ))
    usual = lesson.train(lesson.spec(training=training))
    weights = [job.keeper.trainings[Phase.DISTILLING].selected for job in (named, written, usual)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())


def test_what_a_recipe_gave_wrongly_is_told_at_the_recipe(lesson: Lesson) -> None:
    lesson.write_npz(TRAIN, inputs=np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32),
                     labels=np.arange(40) % 3)
    lesson.write_teacher(Mlp(hidden=[4]), shape=[5])
    data = {"test": None}
    with pytest.raises(InvalidSpecError, match="Augmentation changes images, but the data is a table") as caught:
        run(lesson, lesson.spec(recipe="augmented_views", data=data))
    assert caught.value.param == "/recipe"
    given = {"augmentation": {"transforms": [{"kind": "flip"}]}}
    with pytest.raises(InvalidSpecError) as caught:
        run(lesson, lesson.spec(recipe="augmented_views", data=data, training=given))
    assert caught.value.param == "/training/augmentation"
