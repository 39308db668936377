"""Teachers that PyTorch did not make, teachers that give probabilities, and several at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stillhouse.contract.failures import (
    InputShapeMismatchError,
    InvalidSpecError,
    OutputWidthMismatchError,
    StillhouseError,
    TeacherFailedError,
)
from stillhouse.contract.spec import Cnn
from tests.fixtures.lessons import TEACHER, TRAIN, Lesson, blobs
from tests.fixtures.networks import fitted
from worker.engine.flops import count_flops
from worker.engine.objectives import OBJECTIVES, Views
from worker.engine.preflight import prepare
from worker.engine.softlabels import mode
from worker.engine.teachers import Teacher
from worker.engine.teachers.probabilities import are_probabilities, count_votes, log_probabilities

Table = npt.NDArray[Any]
ONNX = {"kind": "onnx", "artifact": TEACHER}


@pytest.fixture
def table(lesson: Lesson) -> tuple[Table, Table]:
    """A table of 96 rows of 4 columns in 3 classes, staged for training; rows and labels."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 96)
    rows = (random.normal(size=(96, 4)) + np.eye(3, 4)[labels] * 3).astype(np.float32)
    lesson.write_npz(TRAIN, inputs=rows, labels=labels)
    return rows, labels


def stage(lesson: Lesson, model: onnx.ModelProto, artifact: str = TEACHER) -> None:
    path = lesson.folder / f"{artifact}.onnx"
    path.write_bytes(model.SerializeToString())
    lesson.inputs[artifact] = path


def teacher_of(lesson: Lesson, spec: dict[str, Any] = ONNX, **sections: Any) -> Teacher:  # noqa: ANN401 - JSON
    data = {"test": None} | sections.pop("data", {})
    teacher = prepare(lesson.spec(teacher=spec, data=data, **sections), lesson.inputs, "cpu").teacher
    assert teacher is not None
    return teacher


def refused(
    lesson: Lesson, failure: type[StillhouseError], spec: dict[str, Any] = ONNX, **sections: Any,  # noqa: ANN401 - JSON
) -> StillhouseError:
    with pytest.raises(failure) as caught:
        teacher_of(lesson, spec, **sections)
    return caught.value


@pytest.mark.parametrize("options", [{"zipmap": False}, {}], ids=["probabilities", "dicts"])
@pytest.mark.parametrize("make", [LogisticRegression, lambda: make_pipeline(StandardScaler(), LogisticRegression())])
def test_a_classifier_of_scikit_learn_teaches_its_probabilities(
    lesson: Lesson, table: tuple[Table, Table], make: Callable[[], Any], options: dict[str, Any]
) -> None:
    rows, labels = table
    fitted = make().fit(rows, labels)
    stage(lesson, to_onnx(fitted, rows[:1], options={id(fitted): options} if options else None))
    teacher = teacher_of(lesson)
    assert (teacher.gives, teacher.num_outputs, teacher.module) == ("probabilities", 3, None)
    answered = teacher.answer(torch.from_numpy(rows)).softmax(1).numpy()
    np.testing.assert_allclose(answered, fitted.predict_proba(rows), atol=1e-5)


def test_probabilities_of_zero_are_raised_to_the_floor(lesson: Lesson, table: tuple[Table, Table]) -> None:
    rows, labels = table
    forest = RandomForestClassifier(5, random_state=0).fit(rows, labels)
    stage(lesson, to_onnx(forest, rows[:1], options={"zipmap": False}))
    assert (forest.predict_proba(rows) == 0).any()
    answered = teacher_of(lesson, ONNX | {"floor": 0.01}).answer(torch.from_numpy(rows))
    assert answered.exp().min() >= 0.01 / 1.02 - 1e-6
    np.testing.assert_allclose(answered.exp().sum(1), 1, atol=1e-5)


def test_a_whole_number_model_reads_bytes_as_they_are(lesson: Lesson) -> None:
    """x: int64 (free, 8, 8) of bytes; y = the sums of three regions, as logits."""
    masks = np.zeros((8, 8, 3), np.int64)
    masks[2:4, :, 0] = masks[:, 2:4, 1] = masks[4:, 4:, 2] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "flat"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["y"], to=TensorProto.FLOAT),
        ],
        "sums", [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        initializer=[
            onnx.numpy_helper.from_array(masks.reshape(64, 3), "w"),
            onnx.numpy_helper.from_array(np.array([-1, 64]), "flat"),
        ],
    )
    stage(lesson, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    teacher = teacher_of(lesson)
    images, _ = blobs(5, seed=7)
    expected = images.reshape(5, 64).astype(np.int64) @ masks.reshape(64, 3)
    np.testing.assert_array_equal(teacher.answer(torch.from_numpy(images)[:, None]), expected)
    assert teacher.gives == "logits"


def mean_of_two(batch: int | str = "n") -> onnx.ModelProto:
    """Inputs a (batch, 1) and b (batch, 3); logits b * a."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["a", "b"], ["y"])], "two",
        [
            helper.make_tensor_value_info("a", TensorProto.DOUBLE, [batch, 1]),
            helper.make_tensor_value_info("b", TensorProto.DOUBLE, [batch, 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [batch, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_several_inputs_take_columns_in_their_order_or_as_told(
    lesson: Lesson, table: tuple[Table, Table], batch: int | str
) -> None:
    rows, _ = table
    stage(lesson, mean_of_two(batch))
    asked = torch.from_numpy(rows[:7])
    np.testing.assert_allclose(teacher_of(lesson).answer(asked), rows[:7, :1] * rows[:7, 1:], rtol=1e-6)
    told = teacher_of(lesson, ONNX | {"columns": {"a": [3], "b": [2, 1, 0]}}).answer(asked)
    np.testing.assert_allclose(told, rows[:7, 3:] * rows[:7, 2::-1], rtol=1e-6)


def test_columns_that_are_not_there_are_refused(lesson: Lesson, table: tuple[Table, Table]) -> None:
    del table
    stage(lesson, mean_of_two())
    told = refused(lesson, InputShapeMismatchError, ONNX | {"columns": {"a": [4], "b": [0, 1, 2]}})
    assert "columns 0 to 4" in told.message
    told = refused(lesson, InvalidSpecError, ONNX | {"columns": {"a": [1]}})
    assert told.param == "/teacher/columns"


def test_an_image_for_a_model_of_several_inputs_is_refused(lesson: Lesson) -> None:
    stage(lesson, mean_of_two())
    assert "2 inputs" in refused(lesson, InputShapeMismatchError).message


def test_shapes_that_do_not_fit_are_refused(lesson: Lesson, table: tuple[Table, Table]) -> None:
    rows, labels = table
    stage(lesson, to_onnx(LogisticRegression().fit(rows[:, :3], labels), rows[:1, :3]))
    told = refused(lesson, InputShapeMismatchError)
    assert "[3]" in told.message
    assert "[4]" in told.message


def test_an_output_that_is_not_there_is_refused(lesson: Lesson, table: tuple[Table, Table]) -> None:
    rows, labels = table
    stage(lesson, to_onnx(LogisticRegression().fit(rows, labels), rows[:1], options={"zipmap": False}))
    told = refused(lesson, InvalidSpecError, ONNX | {"output": "probability"})
    assert told.param == "/teacher/output"
    assert "probabilities" in told.message


def test_a_file_that_onnx_runtime_cannot_run_is_told(lesson: Lesson, table: tuple[Table, Table]) -> None:
    del table
    graph = helper.make_graph(
        [helper.make_node("NoSuchThing", ["x"], ["y"])], "strange",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    stage(lesson, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    told = refused(lesson, TeacherFailedError)
    assert told.param == "/teacher/artifact"
    assert "NoSuchThing" in told.message


def test_terms_of_logits_refuse_a_teacher_of_probabilities(lesson: Lesson, table: tuple[Table, Table]) -> None:
    rows, labels = table
    stage(lesson, to_onnx(LogisticRegression().fit(rows, labels), rows[:1], options={"zipmap": False}))
    told = refused(lesson, InvalidSpecError, objective={"terms": [{"kind": "kl"}, {"kind": "mse"}]})
    assert told.param == "/objective/terms/1"


SECOND = f"art_{'second':0<20}"


def ensemble(lesson: Lesson, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The lesson's teacher and one of other weights, 3 to 1."""
    first = lesson.inputs[TEACHER]
    torch.manual_seed(5)
    lesson.write_teacher()
    tensors = _changed(first, lesson.folder / "second.safetensors")
    lesson.inputs[SECOND] = tensors
    members = [
        {"teacher": {"kind": "checkpoint", "artifact": TEACHER}, "weight": 3},
        {"teacher": {"kind": "checkpoint", "artifact": SECOND}},
    ]
    return {"kind": "ensemble", "members": members, **fields}


def _changed(source: Path, path: Path) -> Path:
    from safetensors import safe_open  # noqa: PLC0415 - here alone
    from safetensors.torch import save_file  # noqa: PLC0415 - here alone

    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata()
    save_file({name: -tensor if "weight" in name else tensor for name, tensor in tensors.items()}, path, metadata)
    return path


def members_of(lesson: Lesson, images: torch.Tensor) -> list[torch.Tensor]:
    specs = ({"kind": "checkpoint", "artifact": artifact} for artifact in (TEACHER, SECOND))
    return [teacher_of(lesson, spec).answer(images) for spec in specs]


def test_an_ensemble_averages_probabilities_at_each_terms_temperature(lesson: Lesson) -> None:
    teacher = teacher_of(lesson, ensemble(lesson))
    images = torch.from_numpy(blobs(6, seed=9)[0])[:, None]
    answered = teacher.answer(images)
    assert answered.shape == (6, 2, 3)
    assert teacher.gives == "probabilities"
    first, second = (member.double() for member in members_of(lesson, images))
    student = torch.randn(6, 3, dtype=torch.float64)
    for temperature in (1.0, 4.0):
        mixed = 0.75 * (first / temperature).softmax(1) + 0.25 * (second / temperature).softmax(1)
        own = (student / temperature).log_softmax(1)
        expected = temperature**2 * (mixed * (mixed.log() - own)).sum(1).mean()
        views = Views(student, answered.double(), teacher_weights=teacher.shares)
        assert float(OBJECTIVES["kl"](views, temperature=temperature)) == pytest.approx(float(expected), rel=1e-6)


def test_an_ensemble_averages_logits_where_asked(lesson: Lesson) -> None:
    teacher = teacher_of(lesson, ensemble(lesson, average="logits"))
    images = torch.from_numpy(blobs(6, seed=9)[0])[:, None]
    first, second = members_of(lesson, images)
    assert teacher.gives == "logits"
    assert torch.allclose(teacher.answer(images), 0.75 * first + 0.25 * second, atol=1e-6)


def test_members_of_other_widths_are_refused(lesson: Lesson) -> None:
    spec = ensemble(lesson)
    architecture = {"kind": "mlp", "hidden": [4], "num_classes": 3}
    weights = {"body.0.weight": torch.ones(4, 64), "body.0.bias": torch.ones(4), "head.weight": torch.ones(5, 4),
               "head.bias": torch.ones(5)}
    from safetensors.torch import save_file  # noqa: PLC0415 - here alone

    save_file(weights, lesson.inputs[SECOND])
    spec["members"][1]["teacher"]["architecture"] = architecture | {"num_classes": 5}
    told = refused(lesson, OutputWidthMismatchError, spec)
    assert told.param == "/teacher/members/1/teacher"
    assert "5 outputs" in told.message


def test_mistakes_of_a_member_are_told_at_the_member(lesson: Lesson) -> None:
    spec = ensemble(lesson)
    spec["members"][1]["teacher"]["normalization"] = {"mean": [0.1, 0.2], "std": [1, 1]}
    assert refused(lesson, InputShapeMismatchError, spec).param == "/teacher/members/1/teacher/normalization"


def test_votes_are_counted() -> None:
    votes = torch.tensor([[0, 2, 2, -1], [1, 1, 1, 1], [-1, -1, -1, -1]])
    expected = np.array([[1 / 3, 0, 2 / 3], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(count_votes(votes, 3), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "are"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True), ([[0.2, 0.9]], False), ([[-0.1, 1.1]], False), ([[1.0]], False),
        ([[0.3333, 0.3333, 0.3334]], True),
    ],
)
def test_probabilities_are_recognised(rows: list[list[float]], *, are: bool) -> None:
    assert are_probabilities(torch.tensor(rows)) == are


def test_logarithms_of_probabilities_are_logits_of_them() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1]])
    assert torch.allclose(log_probabilities(probabilities, 1e-7).softmax(1), probabilities, atol=1e-6)


def test_a_pass_that_is_timed_is_the_whole_answer(lesson: Lesson, table: tuple[Table, Table]) -> None:
    rows, labels = table
    fitted = LogisticRegression().fit(rows, labels)
    stage(lesson, to_onnx(fitted, rows[:1], options={"zipmap": False}))
    timed = teacher_of(lesson).timed_pass(torch.from_numpy(rows), 1)
    assert timed is not None
    np.testing.assert_allclose(np.concatenate(cast("list[Any]", timed())), fitted.predict_proba(rows), atol=1e-5)


def test_all_members_of_an_ensemble_are_timed(lesson: Lesson) -> None:
    teacher = teacher_of(lesson, ensemble(lesson))
    images = torch.from_numpy(blobs(1, seed=9)[0])[:, None]
    timed = teacher.timed_pass(images, 1)
    assert timed is not None
    for passed, member in zip(cast("list[torch.Tensor]", timed()), members_of(lesson, images), strict=True):
        torch.testing.assert_close(passed, member)


def test_what_an_ensemble_costs_to_ask_is_what_its_members_cost(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {
        "data": {"test": None},
        "training": {"epochs": 100, "augmentation": {"transforms": [{"kind": "flip"}]}},
    }
    several = lesson.spec(teacher=ensemble(lesson), **sections)
    alone, together = (prepare(spec, lesson.inputs, "cpu") for spec in (lesson.spec(**sections), several))
    student, teacher = 3 * count_flops(alone.student.architecture), count_flops(fitted(Cnn(channels=[4]), [1, 8, 8]))
    assert alone.mode.num_views == 100 * (teacher - student) // (2 * teacher)
    assert together.mode.num_views == 100 * (2 * teacher - student) // (4 * teacher)

    num_samples, num_classes, half = len(together.dataset.train.ids), 3, 2
    monkeypatch.setattr(mode, "MAX_AUTO_BYTES", 10 * num_samples * num_classes * half)
    assert prepare(lesson.spec(**sections), lesson.inputs, "cpu").mode.num_views == 10
    assert prepare(several, lesson.inputs, "cpu").mode.num_views is None, "both members' answers are stored: room for 5"
