"""The plan against what can be counted by hand."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillhouse.contract.events import Planned, Stopped, TrainerEvent
from stillhouse.contract.failures import InvalidSpecError, OutOfMemoryError, StillhouseError, WeightsMismatchError
from stillhouse.contract.plan import Note, Plan
from stillhouse.contract.recipes import applied
from stillhouse.contract.spec import JobSpec, Training
from stillhouse.contract.status import Phase, Request
from tests.fixtures.lessons import TEACHER, TRAIN, VALIDATION, Lesson, asked_at, never
from worker.engine import pipeline
from worker.engine import plan as planning
from worker.engine.plan import count_macs

TRAINED = {"kind": "train", "architecture": {"kind": "mlp", "hidden": [4]}}
KL, CROSS_ENTROPY = {"kind": "kl", "temperature": 4.0}, {"kind": "cross_entropy", "weight": 0.25}


def events(lesson: Lesson, spec: JobSpec) -> list[TrainerEvent]:
    return list(pipeline.plan(spec, lesson.inputs, lesson.folder, device="cpu", requested=never))


def planned(lesson: Lesson, **sections: Any) -> Plan:  # noqa: ANN401 - sections of the spec as JSON
    last = events(lesson, lesson.spec(**sections))[-1]
    assert isinstance(last, Planned)
    return last.plan


def remarks(plan: Plan) -> list[Note]:
    """The plan's notes, but for the doubt that the lesson's teacher of random weights deserves."""
    return [note for note in plan.notes if note.code != "teacher_doubtful"]


def test_models_cost_what_they_can_be_counted_to(lesson: Lesson) -> None:
    plan = planned(lesson)
    # mlp 64-6-3: 64 * 6 + 6 * 3 products, a bias for each of 6 + 3.
    assert (plan.student.architecture, plan.student.macs) == ("mlp 64-6-3", 64 * 6 + 6 * 3)
    assert (plan.student.num_parameters, plan.student.num_bytes) == (411, 4 * 411)
    assert plan.teacher is not None
    assert plan.teacher.architecture.startswith("cnn")


def test_what_several_devices_share_is_told(lesson: Lesson) -> None:
    (note,) = [note for note in planned(lesson, devices=2).notes if note.code == "ranks"]
    assert note.message.startswith("2 devices share each batch of 16 samples.")
    assert note.data == {"num_devices": 2, "per_device": []}
    assert not [note for note in planned(lesson).notes if note.code == "ranks"]


def test_a_batch_of_all_samples_that_cannot_be_shared_is_told(lesson: Lesson) -> None:
    lesson.write_blobs(TRAIN, 21, seed=1)
    lesson.write_blobs(VALIDATION, 20, seed=2)
    sections = {"data": {"validation": {"artifact": VALIDATION}}, "training": {"batch_size": 64}}
    planned(lesson, **sections, devices=1)
    with pytest.raises(InvalidSpecError, match="21 samples cannot be shared evenly among 2"):
        events(lesson, lesson.spec(**sections, devices=2))


def test_convolutions_are_counted_by_pixel_and_sample() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 64, 7))
    assert count_macs(model, torch.zeros(1, 3, 8, 8)) == 8 * 8 * 5 * 3 * 9 + 5 * 64 * 7
    assert count_macs(model, torch.zeros(4, 3, 8, 8)) == 4 * (8 * 8 * 5 * 3 * 9 + 5 * 64 * 7)
    assert model.training


def test_memory_is_the_sum_of_what_training_keeps(lesson: Lesson) -> None:
    weights = 4 * 411
    memory = planned(lesson, training={"optimizer": {"kind": "adamw"}, "ema_decay": 0.9}).memory
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
    assert (memory.average, memory.copies) == (weights, 2 * weights)
    # 96 training images (a quarter of them held out) and 40 to test on, as bytes; once more as float32, but for the
    # test split.
    assert memory.samples == (96 + 40) * 64 + 4 * (96 + 24) * 64
    parts = memory.model_dump(exclude={"total", "available", "device_total"})
    assert memory.total == sum(parts.values())
    assert memory.device_total is not None
    assert memory.device_total > (memory.available or 0) > 0


@pytest.mark.parametrize(("optimizer", "moments"), [({"kind": "sgd"}, 1), ({"kind": "sgd", "momentum": 0.0}, 0)])
def test_an_optimizer_keeps_as_many_moments_as_it_has(lesson: Lesson, optimizer: dict[str, Any], moments: int) -> None:
    memory = planned(lesson, training={"optimizer": optimizer}).memory
    assert (memory.optimizer, memory.average) == (moments * 4 * 411, 0)


def test_activations_grow_with_the_batch_and_weights_do_not_count(lesson: Lesson) -> None:
    student = {"kind": "mlp", "hidden": [512]}
    small, large = (
        planned(lesson, student=student, training={"batch_size": size}).memory.activations for size in (8, 64)
    )
    assert 7 < large / small < 9
    # Of each sample at least its 64 inputs and 512 hidden values are kept; 512 * 64 weights would be more.
    assert 8 * (64 + 512) * 4 <= small < 512 * 64 * 4


def test_samples_that_are_augmented_are_not_kept_normalised(lesson: Lesson) -> None:
    plan = planned(lesson, training={"augmentation": {"transforms": [{"kind": "shift"}]}})
    assert plan.memory.samples == (96 + 40) * 64 + 4 * 24 * 64
    assert (plan.soft_labels.mode, "would not halve" in plan.soft_labels.reason) == ("online", True)


def test_soft_labels_are_stored_or_not_made(lesson: Lesson) -> None:
    assert planned(lesson).soft_labels.mode == "stored"
    assert planned(lesson, objective={"terms": [CROSS_ENTROPY]}).soft_labels.mode == "none"


def test_terms_have_the_values_that_the_job_measures_at_its_first_step(lesson: Lesson) -> None:
    sections = {"objective": {"terms": [KL, CROSS_ENTROPY]}}
    told = {term.name: term.value for term in planned(lesson, **sections).terms}
    curves = lesson.train(lesson.spec(**sections)).keeper.trainings[Phase.DISTILLING].curves
    first = {name: dict(curves[f"loss.{name}"])[1] for name in told}
    assert set(told) == {"kl", "cross_entropy"}
    assert told == pytest.approx(first, rel=1e-3)  # stored soft labels are rounded to 11 bits


def test_equal_terms_pull_by_their_weights_before_any_ramp(lesson: Lesson) -> None:
    warm_up, fade_out = {"kind": "warm_up", "fraction": 0.5}, {"kind": "linear", "start": 1.0, "end": 0.0}
    terms = [
        KL | {"name": "strong", "weight": 3.0, "weight_ramp": fade_out}, KL | {"name": "weak", "weight_ramp": warm_up},
    ]
    strong, weak = planned(lesson, objective={"terms": [*terms, CROSS_ENTROPY | {"weight": 0.0}]}).terms
    assert (strong.gradient_share, weak.gradient_share) == pytest.approx((0.75, 0.25))
    assert (strong.name, strong.weight, strong.value) == ("strong", 3.0, weak.value)


def test_time_is_steps_by_what_one_took(lesson: Lesson) -> None:
    plan = planned(lesson, training={"epochs": 7})
    # 72 of 96 samples are trained on, 16 at a time.
    assert (plan.seconds.num_steps, plan.batch_size) == (7 * 4, 16)
    assert plan.seconds.seconds_per_step * 28 == pytest.approx(plan.seconds.phases["distilling"])
    assert plan.seconds.total == pytest.approx(sum(plan.seconds.phases.values()))
    assert list(plan.seconds.phases) == ["soft_labels", "distilling", "control", "evaluating", "exporting"]


def test_the_data_are_told_by_split_and_class(lesson: Lesson) -> None:
    lesson.write_blobs(VALIDATION, 20, seed=2, labelled=False)
    data = planned(lesson, data={
        "validation": {"artifact": VALIDATION, "labels": None}, "label_names": ["row", "column", "corner"],
    }).data
    assert (data.task, data.layout, data.input_shape, data.dtype) == ("classification", "hw", [1, 8, 8], "uint8")
    assert (data.num_classes, len(data.mean), len(data.std)) == (3, 1, 1)
    assert data.scale == pytest.approx(1 / 255)
    assert [(split.name, split.num_samples) for split in data.splits] == [
        ("train", 96), ("validation", 20), ("test", 40)
    ]
    labels = np.load(lesson.inputs[TRAIN])["labels"]
    assert [(count.label, count.num_samples) for count in data.splits[0].class_counts] == [
        (name, int((labels == number).sum())) for number, name in enumerate(["row", "column", "corner"])
    ]
    assert data.splits[1].class_counts == []


def test_many_classes_and_columns_are_not_all_listed(lesson: Lesson) -> None:
    random = np.random.default_rng(0)
    lesson.write_npz(TRAIN, inputs=random.normal(size=(400, 130)), labels=np.arange(400) % 120)
    data = planned(lesson, data={"test": None}, teacher=TRAINED).data
    assert (data.num_classes, len(data.mean), len(data.std)) == (120, 100, 100)
    assert [len(split.class_counts) for split in data.splits] == [100, 100]


def test_images_in_channels_last_and_tables_are_told_apart(lesson: Lesson) -> None:
    students = ({"kind": "cnn", "channels": [4]}, {"kind": "mlp"})
    told = [planned(lesson, student=student).numerics for student in students]
    assert [(one.precision, one.memory_format) for one in told] == [
        ("float32", "channels_last"), ("float32", "contiguous")
    ]


def test_a_teacher_in_training_is_told_as_untrained(lesson: Lesson) -> None:
    plan = planned(lesson, teacher=TRAINED)
    assert [note.code for note in plan.notes] == ["teacher_untrained"]
    assert plan.teacher is not None
    assert plan.teacher.architecture == "mlp 64-4-3"
    assert "teacher" in plan.seconds.phases
    assert remarks(planned(lesson)) == []


def test_a_want_of_memory_is_a_warning(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_bytes", lambda: 1000)
    (note,) = remarks(planned(lesson))
    assert (note.code, note.level) == ("memory_short", "warning")


def test_too_short_a_run_time_is_a_warning(lesson: Lesson) -> None:
    (note,) = remarks(planned(lesson, training={"epochs": 100_000}, max_runtime=0.5))
    assert (note.code, note.level) == ("max_runtime_short", "warning")
    assert remarks(planned(lesson, max_runtime=86_400)) == []


def test_a_plan_trains_nothing_and_ends_with_the_plan(lesson: Lesson) -> None:
    heard = events(lesson, lesson.spec(training={"epochs": 100_000}))
    assert [event.type for event in heard] == ["phase", "note", "note", "note", "note", "planned"]
    last = heard[-1]
    assert isinstance(last, Planned)
    assert Planned.model_validate_json(last.model_dump_json()) == last
    json.dumps(last.model_dump(mode="json"), allow_nan=False)
    assert [path for path in lesson.folder.iterdir() if path not in lesson.inputs.values()] == []


def test_a_plan_tells_what_its_recipe_came_to(lesson: Lesson) -> None:
    spec = lesson.spec(recipe="hinton2015").model_copy(update={"training": Training(batch_size=16)})
    last = events(lesson, spec)[-1]
    assert isinstance(last, Planned)
    plan = last.plan
    assert plan.recipe == applied(spec)
    assert [(term.kind, term.weight) for term in plan.terms] == [("kl", 1.0)]
    assert plan.seconds.num_steps == 40 * 4  # 72 samples are 4 batches of 16


def test_a_mistake_is_the_one_that_fails_the_job(lesson: Lesson) -> None:
    teacher = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4, 5]}}
    spec = lesson.spec(teacher=teacher)
    failures: list[StillhouseError] = []
    for run in (lambda: events(lesson, spec), lambda: lesson.train(spec)):
        with pytest.raises(WeightsMismatchError) as caught:
            run()
        failures.append(caught.value)
    assert failures[0].as_failure() == failures[1].as_failure()
    assert failures[0].param == "/teacher/architecture"


def test_a_plan_that_is_asked_to_stop_writes_nothing(lesson: Lesson) -> None:
    requested = asked_at(1, Request.DRAIN)
    *_, last = pipeline.plan(lesson.spec(), lesson.inputs, lesson.folder, device="cpu", requested=requested)
    assert last == Stopped(request=Request.DRAIN)
    assert not (lesson.folder / "checkpoint.safetensors").exists()


def test_memory_that_runs_out_has_its_name(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_args: object) -> Plan:
        raise MemoryError

    monkeypatch.setattr(pipeline, "make_plan", exhausted)
    with pytest.raises(OutOfMemoryError):
        events(lesson, lesson.spec())
