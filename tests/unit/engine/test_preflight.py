"""Mistakes that are told before any training."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stillhouse.contract.failures import (
    DeviceUnavailableError,
    DivergedError,
    InputShapeMismatchError,
    InvalidSpecError,
    LabelOutOfRangeError,
    NonFiniteWeightsError,
    OutputWidthMismatchError,
    SingleClassError,
    StillhouseError,
    UnbuildableModelError,
    UnderivableStudentError,
    UnknownArchitectureError,
    UnknownModelError,
    WeightsMismatchError,
)
from stillhouse.contract.spec import Mlp, Resnet, Timm
from stillhouse.contract.status import Phase
from stillhouse.models import describe
from tests.fixtures.lessons import TEACHER, TEST, TRAIN, VALIDATION, Lesson, blobs
from worker.engine import rehearsal
from worker.engine.courses import Courses
from worker.engine.preflight import prepare, untrained
from worker.engine.prepared import Prepared, control_metric
from worker.engine.rehearsal import rehearse
from worker.engine.tasks.classification import ClassificationTask
from worker.engine.teachers import NetworkTeacher

TRAINED = {"kind": "train", "architecture": {"kind": "mlp", "hidden": [4]}}


def prepared(lesson: Lesson, **sections: Any) -> Prepared:  # noqa: ANN401 - sections of the spec as JSON
    found, _ = rehearsed(lesson, **sections)
    return found


def rehearsed(lesson: Lesson, **sections: Any) -> tuple[Prepared, dict[Phase, float]]:  # noqa: ANN401
    spec = lesson.spec(**sections)
    found = prepare(spec, lesson.inputs, "cpu")
    teacher = found.teacher or untrained(found, "cpu")
    return found, rehearse(spec, found, Courses(spec, found, "cpu"), teacher, "cpu")


def refused(lesson: Lesson, failure: type[StillhouseError], **sections: Any) -> StillhouseError:  # noqa: ANN401
    with pytest.raises(failure) as caught:
        prepared(lesson, **sections)
    return caught.value


def test_what_is_left_out_is_inferred(lesson: Lesson) -> None:
    found, expected = rehearsed(lesson)
    assert (found.num_classes, found.label_names, found.metric) == (3, ["0", "1", "2"], "accuracy")
    assert (found.student.architecture.input_shape, found.student.architecture.num_classes) == ([1, 8, 8], 3)
    assert found.teacher is not None
    assert isinstance(found.teacher, NetworkTeacher)
    assert found.teacher.preprocessing.normalization.mean == [0.3]
    assert set(expected) == {
        Phase.SOFT_LABELS, Phase.DISTILLING, Phase.CONTROL, Phase.EVALUATING, Phase.EXPORTING
    }
    assert all(seconds > 0 for seconds in expected.values())
    note, _, doubt = found.notes()  # a teacher of random weights
    assert note.data["num_classes"] == 3
    assert doubt.code == "teacher_doubtful"


def test_classes_come_from_the_labels_where_nothing_else_tells_them(lesson: Lesson) -> None:
    assert prepared(lesson, teacher=TRAINED).num_classes == 3
    told = TRAINED | {"architecture": {"kind": "mlp", "num_classes": 5}}
    assert prepared(lesson, teacher=told).num_classes == 5
    assert prepared(lesson, teacher=TRAINED, data={"label_names": ["a", "b", "c", "d"]}).label_names == list("abcd")


def test_a_student_of_another_width_is_refused(lesson: Lesson) -> None:
    told = refused(lesson, OutputWidthMismatchError, student={"kind": "mlp", "num_classes": 4})
    assert told.param == "/student/num_classes"
    assert "4 outputs" in told.message
    assert "3 classes" in told.message


def test_a_teacher_of_another_width_is_refused(lesson: Lesson) -> None:
    told = refused(lesson, OutputWidthMismatchError, data={"num_classes": 4})
    assert told.param == "/teacher/architecture/num_classes"


def test_names_that_are_not_as_many_as_the_teachers_outputs_are_refused(lesson: Lesson) -> None:
    assert refused(lesson, OutputWidthMismatchError, data={"label_names": ["a", "b"]}).param is not None


def test_weights_of_another_architecture_are_refused_by_the_names_of_the_tensors(lesson: Lesson) -> None:
    teacher = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4, 5]}}
    told = refused(lesson, WeightsMismatchError, teacher=teacher)
    assert told.param == "/teacher/architecture"
    assert "missing: body.4.weight" in told.message
    assert "head.weight [3, 4] instead of [3, 5]" in told.message


def test_a_checkpoint_that_tells_no_architecture_needs_one(lesson: Lesson) -> None:
    save_file(load_file(lesson.inputs[TEACHER]), lesson.inputs[TEACHER])
    assert refused(lesson, UnknownArchitectureError).param == "/teacher/artifact"
    named = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4]}}
    found = prepared(lesson, teacher=named)
    assert found.teacher is not None
    assert isinstance(found.teacher, NetworkTeacher)
    assert found.teacher.preprocessing == found.dataset.preprocessing


def test_broken_weights_are_refused(lesson: Lesson) -> None:
    tensors = load_file(lesson.inputs[TEACHER])
    tensors["head.bias"][0] = torch.nan
    save_file(tensors, lesson.inputs[TEACHER])
    teacher = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4]}}
    assert "head.bias" in refused(lesson, NonFiniteWeightsError, teacher=teacher).message


@pytest.mark.parametrize(
    ("sections", "param"),
    [
        ({"student": {"kind": "cnn", "input_shape": [1, 9, 9]}}, "/student/input_shape"),
        ({"student": {"kind": "mlp", "input_shape": [63]}}, "/student/input_shape"),
        (
            {"teacher": {"kind": "train", "architecture": {"kind": "mlp", "input_shape": [65]}}},
            "/teacher/architecture/input_shape",
        ),
        (
            {
                "teacher": {
                    "kind": "checkpoint", "artifact": TEACHER, "normalization": {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
                }
            },
            "/teacher/normalization",
        ),
    ],
)
def test_models_that_cannot_read_the_data_are_refused(lesson: Lesson, sections: dict[str, Any], param: str) -> None:
    assert refused(lesson, InputShapeMismatchError, **sections).param == param


def test_an_mlp_reads_images_that_flatten_to_its_columns(lesson: Lesson) -> None:
    lesson.write_teacher(Mlp(hidden=[4]), shape=[64])
    assert prepared(lesson, student={"kind": "mlp", "input_shape": [64]}).student.architecture.input_shape == [1, 8, 8]


def test_a_cnn_does_not_read_a_table(lesson: Lesson) -> None:
    lesson.write_npz(TRAIN, inputs=np.random.default_rng(0).normal(size=(30, 4)), labels=np.arange(30) % 3)
    told = refused(lesson, InputShapeMismatchError, data={"test": None}, teacher=TRAINED, student={"kind": "cnn"})
    assert "mlp" in told.message


@pytest.mark.parametrize(
    ("section", "failure", "told"),
    [
        ({"kind": "timm", "name": "resnet81"}, UnknownModelError, "did you mean `resnet18`"),
        ({"kind": "timm", "name": "resnet10t", "config": {"depht": 3}}, UnbuildableModelError, "depht"),
        ({"kind": "torchvision", "name": "squeezenet1_1"}, InputShapeMismatchError, r"cannot read .* of \[1, 8, 8\]"),
        ({"kind": "transformers", "model_type": "vit"}, InputShapeMismatchError, "Kernel size"),
        (
            {
                "kind": "timm", "name": "vit_tiny_patch16_224",
                "config": {"depth": 1, "global_pool": "", "patch_size": 8},
            },
            UnbuildableModelError, r"answers with shape \[2, 3\], not with 3 logits",
        ),
    ],
)
def test_models_of_libraries_that_cannot_work_are_told(
    lesson: Lesson, section: dict[str, Any], failure: type[StillhouseError], told: str
) -> None:
    assert refused(lesson, failure, student=section).param == "/student"
    error = refused(lesson, failure, teacher={"kind": "train", "architecture": section})
    assert error.param == "/teacher/architecture"
    assert re.search(told, error.message)


@pytest.mark.parametrize("kind", ["checkpoint", "train"])
@pytest.mark.parametrize(
    ("student", "described"),
    [
        ({"kind": "layers", "keep": {"layer1": [1], "layer2": [0]}}, "resnet14 1-8-8-8-8-3, only layer1 1, layer2 0"),
        ({"kind": "pruned", "ratio": 0.5, "round_to": 2}, "resnet14 1-8-8-8-8-3, pruned"),
    ],
)
def test_a_student_that_is_made_from_the_teacher_is_known_before_any_training(
    lesson: Lesson, kind: str, student: dict[str, Any], described: str
) -> None:
    architecture = Resnet(depth=14, channels=[8, 8, 8])
    lesson.write_teacher(architecture)
    teacher = {"kind": "train", "architecture": architecture.model_dump()} if kind == "train" else {
        "kind": "checkpoint", "artifact": TEACHER
    }
    found = prepared(lesson, teacher=teacher, student=student).student.architecture
    assert describe(found, [1, 8, 8], 3) == described
    assert (found.input_shape, found.num_classes) == ([1, 8, 8], 3)


@pytest.mark.parametrize(
    ("student", "param"),
    [
        ({"kind": "layers", "keep": {"layer2": [1]}}, "/student/keep/layer2"),
        ({"kind": "layers", "keep": {"blocks": [1]}}, "/student/keep"),
        ({"kind": "pruned", "ratio": 0.02}, "/student/ratio"),
    ],
)
def test_a_student_that_cannot_be_made_from_the_teacher_is_told(
    lesson: Lesson, student: dict[str, Any], param: str
) -> None:
    lesson.write_teacher(Resnet(depth=14, channels=[8, 16, 24]))
    assert refused(lesson, UnderivableStudentError, student=student).param == param


def test_a_teacher_that_cannot_read_the_data_is_told(lesson: Lesson) -> None:
    config = {"depth": 1, "patch_size": 4, "img_size": [16, 16]}
    lesson.write_teacher(Timm(name="vit_tiny_patch16_224", config=config))
    told = refused(lesson, InputShapeMismatchError)
    assert told.param == "/teacher/architecture"
    assert "cannot read inputs of [1, 8, 8]" in told.message


def test_a_teacher_of_pytorch_is_read(lesson: Lesson) -> None:
    torch.save({"state_dict": load_file(lesson.inputs[TEACHER])}, lesson.folder / "a.pt")
    lesson.inputs[TEACHER] = lesson.folder / "a.pt"
    assert refused(lesson, UnknownArchitectureError).param == "/teacher/artifact"
    named = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4]}}
    assert prepared(lesson, teacher=named).num_classes == 3


@pytest.mark.parametrize("split", [TRAIN, TEST, VALIDATION])
@pytest.mark.parametrize("label", [3, 250])
def test_a_label_out_of_range_is_told_with_the_first_sample(lesson: Lesson, split: str, label: int) -> None:
    images, labels = blobs(30, seed=4)
    labels[[17, 25]] = label
    lesson.write_blobs(VALIDATION, 30, seed=2)
    lesson.write_npz(split, inputs=images, labels=labels)
    told = refused(lesson, LabelOutOfRangeError, data={"validation": {"artifact": VALIDATION}})
    assert f"label {label} of sample 17" in told.message
    assert told.param == {TRAIN: "/data/train", TEST: "/data/test", VALIDATION: "/data/validation"}[split]


def test_a_label_out_of_range_in_the_held_out_part_is_found_under_its_number_in_the_file(lesson: Lesson) -> None:
    images, labels = blobs(96, seed=0)
    held = int(prepared(lesson).dataset.validation.ids[3])
    wide = labels.astype(np.int64)
    wide[held] = -1
    lesson.write_npz(TRAIN, inputs=images, labels=wide)
    told = refused(lesson, LabelOutOfRangeError)
    assert f"label -1 of sample {held}" in told.message
    assert told.param == "/data/train"


def test_one_class_alone_teaches_nothing(lesson: Lesson) -> None:
    images, _ = blobs(30, seed=0)
    lesson.write_npz(TRAIN, inputs=images, labels=np.full(30, 2))
    assert "all training labels are 2" in refused(lesson, SingleClassError).message


@pytest.mark.parametrize(
    ("sections", "param"),
    [
        (
            {"student": {"kind": "mlp", "batch_norm": True}, "training": {"batch_size": 1}},
            "/training/batch_size",
        ),
        ({"student": {"kind": "resnet", "depth": 8}, "training": {"batch_size": 1}}, "/training/batch_size"),
        ({"student": {"kind": "timm", "name": "resnet10t"}, "training": {"batch_size": 1}}, "/training/batch_size"),
        (
            {"student": {"kind": "layers", "keep": {"body": [0, 1, 2, 3, 4, 5]}}, "training": {"batch_size": 1}},
            "/training/batch_size",
        ),
        (
            {"teacher": TRAINED | {"training": {"selection_metric": "agreement"}}},
            "/teacher/training/selection_metric",
        ),
    ],
)
def test_sections_that_cannot_work_together_are_refused(lesson: Lesson, sections: dict[str, Any], param: str) -> None:
    assert refused(lesson, InvalidSpecError, **sections).param == param


def test_tables_are_not_augmented(lesson: Lesson) -> None:
    lesson.write_npz(TRAIN, inputs=np.random.default_rng(0).normal(size=(30, 4)), labels=np.arange(30) % 3)
    shift = {"augmentation": {"transforms": [{"kind": "shift"}]}}
    told = refused(lesson, InvalidSpecError, data={"test": None}, teacher=TRAINED, training=shift)
    assert told.param == "/training/augmentation"


@pytest.mark.parametrize(
    ("metric", "labelled", "student", "control"),
    [
        ("auto", True, "accuracy", "accuracy"), ("agreement", True, "agreement", "accuracy"),
        ("loss", True, "loss", "loss"), ("auto", False, "agreement", "agreement"),
    ],
)
def test_what_selects_follows_from_the_spec_and_the_labels(
    lesson: Lesson, metric: str, labelled: bool, student: str, control: str
) -> None:
    lesson.write_blobs(VALIDATION, 20, seed=2, labelled=labelled)
    validation = {"artifact": VALIDATION, "labels": "labels" if labelled else None}
    spec = lesson.spec(data={"validation": validation}, training={"selection_metric": metric})
    assert prepare(spec, lesson.inputs, "cpu").metric == student
    assert control_metric(spec, ClassificationTask()) == control


def test_a_loss_on_labels_cannot_select_where_there_are_none(lesson: Lesson) -> None:
    lesson.write_blobs(VALIDATION, 20, seed=2, labelled=False)
    validation = {"artifact": VALIDATION, "labels": None}
    told = refused(lesson, InvalidSpecError, data={"validation": validation}, training={"selection_metric": "loss"})
    assert told.param == "/training/selection_metric"


def test_a_first_loss_that_is_not_finite_is_told_before_training(lesson: Lesson) -> None:
    lesson.write_npz(TRAIN, inputs=np.full((30, 4), 1e38) * [1, -1, 1, -1], labels=np.arange(30) % 3)
    normalization = {"mean": [0.0], "std": [1e-3]}
    told = refused(
        lesson, DivergedError, data={"test": None, "normalization": normalization}, teacher=TRAINED
    )
    assert told.step == 0


def test_batch_normalisation_needs_two_samples_on_each_device(lesson: Lesson) -> None:
    spec = lesson.spec(training={"batch_size": 2}, student={"kind": "mlp", "hidden": [6], "batch_norm": True})
    prepare(spec, lesson.inputs, "cpu")
    with pytest.raises(InvalidSpecError, match="2 samples per step on each device"):
        prepare(spec, lesson.inputs, "cpu", num_ranks=2)


def test_a_device_that_is_not_there_is_told(lesson: Lesson) -> None:
    with pytest.raises(DeviceUnavailableError, match="cuda:0"):
        prepare(lesson.spec(), lesson.inputs, "cuda:0")


def test_what_a_phase_should_take_grows_with_its_steps(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "CHUNK", 1)
    short, long = (rehearsed(lesson, training={"epochs": epochs})[1] for epochs in (1, 2000))
    assert long[Phase.DISTILLING] > 10 * short[Phase.DISTILLING]
    assert rehearsed(lesson, control=False)[1][Phase.CONTROL] == 0
    assert Phase.TEACHER in rehearsed(lesson, teacher=TRAINED)[1]
