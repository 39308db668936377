"""Whole jobs of every task, on images and on tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.contract.events import Finished, Measured, Noted, PhaseStarted, TrainerEvent
from stillhouse.contract.failures import (
    InvalidSpecError,
    LabelOutOfRangeError,
    OutputWidthMismatchError,
    SingleClassError,
    StillhouseError,
    UnusableArrayError,
    UnusableLabelsError,
)
from stillhouse.contract.report import Report
from stillhouse.contract.spec import Cnn, JobSpec, Mlp
from stillhouse.contract.status import Phase
from tests.fixtures.lessons import TEACHER, TEST, TRAIN, VALIDATION, Lesson, curved, marks, never
from worker.engine import pipeline, preflight
from worker.engine.data import Dataset, load_dataset

FAST = {"kind": "adamw", "learning_rate": 0.02}
TRAINED = {
    "kind": "train", "architecture": {"kind": "mlp", "hidden": [32]},
    "training": {"epochs": 25, "batch_size": 16, "optimizer": FAST},
}
TAUGHT = {"kind": "checkpoint", "artifact": TEACHER}


def run(lesson: Lesson, spec: JobSpec) -> list[TrainerEvent]:
    scratch = lesson.folder / "run"
    scratch.mkdir(exist_ok=True)
    return list(pipeline.run(spec, lesson.inputs, scratch, checkpoint=None, device="cpu", requested=never))


def report_of(events: list[TrainerEvent]) -> Report:
    last = events[-1]
    assert isinstance(last, Finished)
    return last.report


def notes(events: list[TrainerEvent]) -> dict[str, Noted]:
    return {event.code: event for event in events if isinstance(event, Noted)}


def write(lesson: Lesson, draw: Callable[[int, int], tuple[Any, Any]], *, labels: bool = True) -> None:
    for artifact, count, seed in ((TRAIN, 160, 0), (TEST, 60, 1)):
        inputs, rows = draw(count, seed)
        lesson.write_npz(artifact, inputs=inputs, **({"labels": rows} if labels else {}))


def shifted_marks(count: int, seed: int) -> tuple[Any, Any]:
    """Images, and numbers that their marks stand for."""
    images, labels = marks(count, seed)
    return images, labels.astype(np.float32) * [2, -1, 1] + [0, 1, 0]


def signs(count: int, seed: int) -> tuple[Any, Any]:
    """Rows, and which of three things hold for them."""
    rows, values = curved(count, seed)
    return rows, (values > 0.3).astype(np.uint8)


def one_value(count: int, seed: int) -> tuple[Any, Any]:
    """Rows, and one value each, as a plain array."""
    rows, values = curved(count, seed)
    return rows, values[:, 1]


@dataclass(frozen=True)
class Case:
    """A task with data for it, and the score that a student should reach."""

    kind: str
    draw: Callable[[int, int], tuple[Any, Any]]
    quality: str
    least: float
    inputs: str
    num_outputs: int = 3

    def __str__(self) -> str:
        return f"{self.kind} of {self.inputs}"


LABELLED = [
    Case("multi_label", marks, "average_precision", 0.95, "images"),
    Case("multi_label", signs, "average_precision", 0.95, "table"),
    Case("regression", shifted_marks, "r2", 0.9, "images"),
    Case("regression", curved, "r2", 0.9, "table"),
    Case("regression", one_value, "r2", 0.85, "table", num_outputs=1),
]


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("case", LABELLED, ids=str)
def test_a_student_learns_its_task_from_a_teacher_that_learned_it(lesson: Lesson, case: Case) -> None:
    write(lesson, case.draw)
    spec = lesson.spec(
        task={"kind": case.kind}, teacher=TRAINED, student={"kind": "mlp", "hidden": [16]},
        training={"epochs": 40, "optimizer": FAST},
    )
    events = run(lesson, spec)
    report = report_of(events)
    for subject in report.subjects:
        assert getattr(subject.scores, case.quality) > case.least, subject.name
    assert [subject.name for subject in report.subjects] == ["teacher", "student", "control"]
    assert (report.task, report.inputs, report.num_outputs) == (case.kind, case.inputs, case.num_outputs)
    assert report.selection.metric == case.quality
    student, control = report.subject("student"), report.subject("control")
    assert student is not None
    assert control is not None
    assert student.scores.agreement is not None
    assert student.scores.agreement > 0.8
    gained = getattr(student.scores, case.quality) - getattr(control.scores, case.quality)
    assert report.gain == pytest.approx(gained if case.quality == "r2" else 100 * gained)
    assert (report.gain_metric, report.gain_unit) == (
        case.quality, "R²" if case.quality == "r2" else "percentage points"
    )
    names = {name for event in events if isinstance(event, Measured) for name in event.values}
    soft, hard = ("bce", "binary_cross_entropy") if case.kind == "multi_label" else ("mse", "squared_error")
    assert {f"validation.{case.quality}", "validation.agreement", "validation.loss"} <= names
    assert {f"loss.{soft}", f"loss.{hard}"} <= names
    assert f"{case.num_outputs} " in notes(events)["data_read"].message


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(("kind", "soft"), [("multi_label", "bce"), ("regression", "mse")])
def test_without_labels_the_teacher_is_all_there_is(lesson: Lesson, kind: str, soft: str) -> None:
    write(lesson, marks, labels=False)
    lesson.write_teacher(Mlp(hidden=[8]))
    data = {"train": {"artifact": TRAIN, "labels": None}, "test": {"artifact": TEST, "labels": None}}
    spec = lesson.spec(
        task={"kind": kind}, data=data, student={"kind": "mlp", "hidden": [32]},
        training={"epochs": 40, "optimizer": FAST},
    )
    events = run(lesson, spec)
    report = report_of(events)
    student = report.subject("student")
    assert student is not None
    assert student.scores.agreement is not None
    assert student.scores.agreement > 0.7
    assert (student.scores.average_precision, student.scores.r2, report.gain) == (None, None, None)
    assert report.selection.metric == "agreement"
    assert {name for event in events if isinstance(event, Measured) for name in event.values if "loss." in name} == {
        f"loss.{soft}"
    }


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(("draw", "shape"), [(marks, [1, 8, 8]), (curved, [4])])
def test_an_embedding_is_learned_from_vectors_alone(
    lesson: Lesson, draw: Callable[[int, int], tuple[Any, Any]], shape: list[int]
) -> None:
    write(lesson, draw, labels=False)
    lesson.write_teacher(Mlp(hidden=[12]), shape=shape, num_outputs=7)
    spec = lesson.spec(
        task={"kind": "embedding"}, student={"kind": "mlp", "hidden": [24]},
        training={"epochs": 60, "optimizer": FAST},
    )
    events = run(lesson, spec)
    assert Phase.CONTROL not in [event.phase for event in events if isinstance(event, PhaseStarted)]
    report = report_of(events)
    assert [subject.name for subject in report.subjects] == ["teacher", "student"]
    assert report.selection.metric == "cosine"
    assert (report.label_names, report.num_outputs, report.gain) == ([], 7, None)
    student = report.subject("student")
    assert student is not None
    scores = student.scores
    assert scores.cosine is not None
    assert scores.cosine > 0.9
    assert scores.agreement is not None
    assert scores.agreement > 0.5
    assert scores.similarity_correlation is not None
    assert scores.similarity_correlation > 0.8
    assert any("no student without a teacher" in note for note in report.notes)
    assert "labels_unused" not in notes(events)


@pytest.mark.usefixtures("unexported")
def test_labels_beside_an_embedding_are_told_not_to_be_read(lesson: Lesson) -> None:
    labels = {"artifact": TRAIN, "labels": "whatever"}  # not even in the file
    events = run(lesson, lesson.spec(task={"kind": "embedding"}, data={"train": labels}))
    assert "labels of train" in notes(events)["labels_unused"].message


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("multi_label", "average_precision"), ("multi_label", "agreement"), ("multi_label", "loss"),
        ("regression", "r2"), ("regression", "agreement"), ("regression", "loss"),
        ("embedding", "cosine"), ("embedding", "agreement"), ("embedding", "loss"),
    ],
)
def test_every_metric_of_a_task_can_select(lesson: Lesson, kind: str, metric: str) -> None:
    write(lesson, marks, labels=kind != "embedding")
    spec = lesson.spec(task={"kind": kind}, training={"selection_metric": metric})
    assert report_of(run(lesson, spec)).selection.metric == metric


@pytest.mark.usefixtures("unexported")
def test_the_control_has_the_students_own_term_of_labels(lesson: Lesson) -> None:
    write(lesson, marks)
    job = lesson.train(lesson.spec(task={"kind": "multi_label"}, objective={"terms": [
        {"kind": "bce"}, {"kind": "binary_cross_entropy", "name": "hard", "positive_weight": 3.0, "weight": 0.2}
    ]}))
    control = job.courses.control(job.keeper.soft_labels)
    assert control.loss.names == ["loss", "loss.hard"]
    batch = control.batch(0)
    state = control.begin("cpu")
    views = control.look(state, batch)
    weighted = torch.nn.functional.binary_cross_entropy_with_logits(
        views.student, views.true_labels, pos_weight=torch.full((3,), 3.0), reduction="sum"
    )
    assert control.loss(views)[0].item() == pytest.approx(weighted.item() / len(views.student), rel=1e-5)


# Partly labelled


def without_some_labels(dataset: Dataset, given: torch.Tensor, garbage: float) -> Dataset:
    """The data as if only these samples of the training file had a label, with garbage where the others were."""
    samples = dataset.train.samples
    assert samples.labels is not None
    shape = (-1, *[1] * (samples.labels.ndim - 1))
    labels = torch.where(given.view(shape), samples.labels, torch.tensor(garbage).to(samples.labels))
    fewer = replace(samples, labels=labels, mask=given)
    return replace(
        dataset, train=replace(dataset.train, samples=fewer), validation=replace(dataset.validation, samples=fewer)
    )


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("kind", "draw", "garbage", "hard"),
    [
        ("classification", None, 77, "cross_entropy"), ("multi_label", marks, torch.nan, "binary_cross_entropy"),
        ("regression", shifted_marks, torch.nan, "squared_error"),
    ],
)
def test_partly_labelled_samples_teach_by_what_they_have(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch, kind: str, draw: Any, garbage: float, hard: str  # noqa: ANN401
) -> None:
    if draw:
        write(lesson, draw)

    def partly(spec: JobSpec, inputs: dict[str, Path], scratch: Path | None) -> Dataset:
        dataset = load_dataset(spec, inputs, scratch)
        return without_some_labels(dataset, torch.arange(len(dataset.train.samples)) % 3 == 0, garbage)

    monkeypatch.setattr(preflight, "load_dataset", partly)
    spec = lesson.spec(
        task={"kind": kind}, data={"test": None}, student={"kind": "mlp", "hidden": [16]},
        training={"epochs": 20, "optimizer": FAST},
    )
    events = run(lesson, spec)
    report = report_of(events)
    split = next(split for split in report.splits if split.name == "validation")
    assert split.num_labelled is not None
    assert 0 < split.num_labelled < split.num_samples
    hards = [
        event.values[f"loss.{hard}"] for event in events
        if isinstance(event, Measured) and f"loss.{hard}" in event.values
    ]
    assert hards[-1] < hards[0]
    student, teacher = report.subject("student"), report.subject("teacher")
    assert student is not None
    assert teacher is not None
    for scores in (student.scores, teacher.scores):
        if kind == "classification":
            assert sum(score.support for score in scores.per_class) == split.num_labelled
        quality = getattr(scores, {"classification": "accuracy", "multi_label": "average_precision"}.get(kind, "r2"))
        assert np.isfinite(quality)


# Mistakes


def refused(lesson: Lesson, failure: type[StillhouseError], kind: str, **sections: Any) -> StillhouseError:  # noqa: ANN401
    data = {"test": None} | sections.pop("data", {})
    spec = lesson.spec(task={"kind": kind}, data=data, **{"teacher": TRAINED, **sections})
    with pytest.raises(failure) as caught:
        preflight.prepare(spec, lesson.inputs, "cpu")
    return caught.value


def change(rows: Any, place: tuple[int, int], value: float) -> Any:  # noqa: ANN401 - arrays
    rows = rows.astype(np.float64)
    rows[place] = value
    return rows


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_a_label_that_is_neither_true_nor_false_is_told_with_its_place(lesson: Lesson, value: float) -> None:
    images, labels = marks(40, 0)
    lesson.write_npz(TRAIN, inputs=images, labels=change(labels, (17, 1), value))
    told = refused(lesson, LabelOutOfRangeError, "multi_label")
    assert told.message == f"label {value:g} of sample 17 in column 1 is neither 0 nor 1"
    assert told.param == "/data/train"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_target_that_is_no_number_is_told_with_its_place(lesson: Lesson, value: float) -> None:
    """1e39 is one, but not in float32."""
    rows, targets = curved(40, 0)
    lesson.write_npz(TRAIN, inputs=rows, labels=targets)
    with np.errstate(over="ignore"):
        lesson.write_npz(VALIDATION, inputs=rows, labels=change(targets, (3, 2), value))
        told = refused(lesson, UnusableLabelsError, "regression", data={"validation": {"artifact": VALIDATION}})
    assert "of sample 3 in column 2 is no finite number" in told.message
    assert told.param == "/data/validation"


@pytest.mark.parametrize(
    ("kind", "labels", "says"),
    [
        ("classification", np.zeros((40, 3), np.uint8), "task.kind is multi_label"),
        ("classification", np.zeros(40), "one integer per input"),
        ("multi_label", np.zeros(40, np.uint8), "a row of 0 and 1"),
        ("multi_label", np.full((40, 3), "x"), "a row of 0 and 1"),
        ("multi_label", np.zeros((40, 0)), "a row of 0 and 1"),
        ("regression", np.zeros((40, 2, 2)), "one or a row"),
        ("regression", np.zeros((40, 2), bool), "targets must be numbers"),
        ("regression", np.zeros((40, 2), complex), "targets must be numbers"),
    ],
)
def test_labels_of_another_kind_are_told_with_what_they_should_be(
    lesson: Lesson, kind: str, labels: Any, says: str  # noqa: ANN401 - arrays
) -> None:
    lesson.write_npz(TRAIN, inputs=marks(40, 0)[0], labels=labels)
    told = refused(lesson, UnusableArrayError, kind)
    assert says in told.message
    assert str(list(labels.shape)) in told.message
    assert told.param == "/data/train"


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_labels_of_another_width_are_told(lesson: Lesson, kind: str) -> None:
    images, labels = marks(40, 0)
    lesson.write_npz(TRAIN, inputs=images, labels=labels)
    lesson.write_npz(TEST, inputs=images, labels=labels[:, :2])
    told = refused(lesson, OutputWidthMismatchError, kind, data={"test": {"artifact": TEST}})
    assert told.param == "/data/test"
    assert "2 columns" in told.message
    lesson.write_teacher(Cnn(channels=[4]), num_outputs=5)
    told = refused(lesson, OutputWidthMismatchError, kind, teacher=TAUGHT)
    assert told.param == "/data/train"
    assert "5 labels" in told.message or "5 targets" in told.message


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_labels_that_are_all_the_same_teach_nothing(lesson: Lesson, kind: str) -> None:
    lesson.write_npz(TRAIN, inputs=marks(40, 0)[0], labels=np.ones((40, 1)))
    assert "nothing to learn" in refused(lesson, SingleClassError, kind).message


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_a_validation_split_that_cannot_select_is_told(lesson: Lesson, kind: str) -> None:
    images, labels = marks(40, 0)
    lesson.write_npz(TRAIN, inputs=images, labels=labels)
    lesson.write_npz(VALIDATION, inputs=images, labels=np.zeros((40, 3)))
    told = refused(lesson, SingleClassError, kind, data={"validation": {"artifact": VALIDATION}})
    assert told.param == "/data/validation"
    assert "nothing to select by" in told.message


def test_a_label_or_target_that_never_varies_is_told_by_its_name(lesson: Lesson) -> None:
    images, labels = marks(40, 0)
    labels[:, 1] = 1
    lesson.write_npz(TRAIN, inputs=images, labels=labels)
    for kind in ("multi_label", "regression"):
        spec = lesson.spec(
            task={"kind": kind}, teacher=TRAINED, data={"test": None, "label_names": ["row", "column", "corner"]}
        )
        (told,) = preflight.prepare(spec, lesson.inputs, "cpu").remarks
        assert told.code == "constant_labels"
        assert "column" in told.message
        assert "corner" not in told.message


@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_targets_in_a_unit_that_is_hard_to_learn_are_told(lesson: Lesson, factor: float) -> None:
    rows, targets = curved(60, 0)
    lesson.write_npz(TRAIN, inputs=rows, labels=targets * [1, factor, 1])
    spec = lesson.spec(
        task={"kind": "regression"}, teacher=TRAINED, data={"test": None, "label_names": ["here", "there", "near"]}
    )
    (told,) = preflight.prepare(spec, lesson.inputs, "cpu").remarks
    assert told.code == "targets_far_from_unit_scale"
    assert "there (" in told.message
    assert "here (" not in told.message.replace("there (", "")


def test_names_are_as_many_as_outputs(lesson: Lesson) -> None:
    images, labels = marks(40, 0)
    lesson.write_npz(TRAIN, inputs=images, labels=labels)
    told = refused(lesson, OutputWidthMismatchError, "multi_label", data={"label_names": ["a", "b"]})
    assert "label_names has 2 names" in told.message
    told = refused(lesson, InvalidSpecError, "regression", teacher=TRAINED | {
        "training": {"selection_metric": "agreement"}
    })
    assert "use r2 or loss" in told.message


def test_a_regression_has_one_target_or_more_and_a_classification_two_classes(lesson: Lesson) -> None:
    rows, targets = curved(40, 0)
    lesson.write_npz(TRAIN, inputs=rows, labels=targets[:, :1])
    spec = lesson.spec(task={"kind": "regression"}, teacher=TRAINED, data={"test": None, "label_names": ["value"]})
    found = preflight.prepare(spec, lesson.inputs, "cpu")
    assert (found.num_classes, found.label_names) == (1, ["value"])
