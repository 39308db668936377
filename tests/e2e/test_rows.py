"""Every kind of term, task, teacher, student, data and soft-label mode, through `POST /jobs` to a model that answers.

What each computes has tests of its own. Here it is that the whole service carries it: admission, staging, trainer,
report, bundle. The oracle of most is the downloaded model: it is right as often as the report tells.
"""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from stillhouse import Client
from stillhouse.client import StillhouseApiError
from stillhouse.contract.events import Noted
from stillhouse.contract.spec import Cnn, Mlp, Resnet, Term, Timm, Torchvision, Transformers
from stillhouse.contract.spec.term import FeatureTerm
from stillhouse.models import load_checkpoint
from tests.e2e.conftest import Running
from tests.fixtures.lessons import NUM_CLASSES, SHAPE, blobs, curved, marks
from tests.fixtures.networks import SMALL_VIT
from tests.fixtures.shop import NUM_TEST, NUM_TRAIN, Done, Shop, pictures, table

KINDS = get_args(get_args(Term)[0])
ON_LAYERS = sorted(kind.model_fields["kind"].default for kind in KINDS if issubclass(kind, FeatureTerm))
ON_LOGITS = sorted(
    kind.model_fields["kind"].default for kind in KINDS
    if not issubclass(kind, FeatureTerm) and "classification" in kind.tasks
)
RGB = [3, 32, 32]
GREY = blobs(NUM_TEST, 1)
COLOURED = pictures(NUM_TEST, 1)


@pytest.fixture(scope="module")
def shop(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A whole service and its customer."""
    with running(tmp_path_factory.mktemp("home")) as local, Client(local.url, local.key) as client:
        yield Shop(client, tmp_path_factory.mktemp("files"))


def checkpoint(artifact: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"kind": "checkpoint", "artifact": artifact, **more}


def messages(done: Done, code: str) -> list[str]:
    events = (recorded.event for recorded in done.job.watch())
    return [event.message for event in events if isinstance(event, Noted) and event.code == code]


# Objectives


def test_every_term_on_logits(shop: Shop) -> None:
    done = shop.run(
        teacher=checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)), data=shop.blobs(),
        objective={"terms": [{"kind": kind} for kind in ON_LOGITS]},
    )
    told = done.series()
    assert {f"{what}.{kind}" for kind in ON_LOGITS for what in ("loss", "gradient_share")} <= told
    assert done.keeps(*GREY)


def test_every_term_on_layers(shop: Shop) -> None:
    pairs = [{"student": path, "teacher": path} for path in ("body.0", "body.4")]
    done = shop.run(
        teacher=checkpoint(shop.checkpoint(Cnn(channels=[4, 8]), SHAPE)), data=shop.blobs(),
        student={"kind": "cnn", "channels": [4, 6]},
        objective={"terms": [{"kind": "kl"}, *({"kind": kind, "pairs": pairs} for kind in ON_LAYERS)]},
    )
    told = done.series()
    assert {f"{what}.{kind}" for kind in ON_LAYERS for what in ("loss", "gradient_share")} <= told
    assert done.notes()["soft_labels"]["mode"] == "online"
    assert done.keeps(*GREY)


# Tasks


def test_several_labels(shop: Shop) -> None:
    (train, labels), (test, test_labels) = marks(NUM_TRAIN, 0), marks(NUM_TEST, 1)
    done = shop.run(
        task={"kind": "multi_label"}, control=True,
        teacher={"kind": "train", "architecture": {"kind": "cnn", "channels": [8]}, "training": {"epochs": 20}},
        data=shop.npz_pair({"inputs": train, "labels": labels}, {"inputs": test, "labels": test_labels}),
    )
    decided = done.model.probabilities(test).numpy() >= 0.5
    assert np.isclose((decided == test_labels).all(1).mean(), done.subject().scores.exact_match or 0.0)
    assert done.report.gain_metric == "average_precision"
    assert {"loss.bce", "loss.binary_cross_entropy"} <= done.series()


def test_a_regression(shop: Shop) -> None:
    (train, targets), (test, test_targets) = curved(256, 0), curved(NUM_TEST, 1)
    done = shop.run(
        task={"kind": "regression"}, objective={"terms": [{"kind": "mse"}, {"kind": "huber", "weight": 0.5}]},
        teacher={
            "kind": "train", "architecture": {"kind": "mlp", "hidden": [32]},
            "training": {"epochs": 20, "batch_size": 16},
        },
        student={"kind": "mlp", "hidden": [16]}, training={"epochs": 20},
        data=shop.npz_pair({"inputs": train, "labels": targets}, {"inputs": test, "labels": test_targets}),
    )
    error = np.abs(done.model.outputs(test).numpy() - test_targets).mean()
    assert np.isclose(error, done.subject().scores.mae or 0.0, rtol=1e-4)
    assert (done.subject("teacher").scores.r2 or 0) > 0.5


def test_an_embedding(shop: Shop) -> None:
    rows, test = curved(NUM_TRAIN, 0)[0], curved(NUM_TEST, 1)[0]
    done = shop.run(
        task={"kind": "embedding"}, teacher=checkpoint(shop.checkpoint(Mlp(hidden=[8]), [4], num_outputs=5)),
        objective={"terms": [{"kind": kind} for kind in ("mse", "cosine", "rkd", "sp", "pkt", "cka")]},
        training={"selection_metric": "loss"},
        data=shop.npz_pair({"inputs": rows}, {"inputs": test}, split={"labels": None}),
    )
    teacher = load_checkpoint(shop.folder / "teacher.safetensors").model.eval()
    read = done.model.preprocessing
    with torch.inference_mode():
        taught = teacher(read.normalize(read.arrange(test)))
    alike = functional.cosine_similarity(done.model.outputs(test), taught).mean().item()
    assert done.subject().scores.cosine == pytest.approx(alike, abs=1e-5)
    assert {"loss.cosine", "loss.rkd"} <= done.series()


# Teachers, students, data, augmentation


def test_timm_weights_of_a_training_script_and_mixed_images(shop: Shop) -> None:
    teacher = Timm(name="resnet10t")
    images, labels = pictures(NUM_TRAIN, 0)
    done = shop.run(
        teacher=checkpoint(shop.bare_weights(teacher, RGB, "pt"), architecture=teacher.model_dump(mode="json")),
        student={"kind": "resnet", "depth": 8, "channels": [4, 8, 8]},
        data=shop.npz_pair(
            {"inputs": images, "labels": labels}, dict(zip(("inputs", "labels"), COLOURED, strict=True))
        ),
        training={"augmentation": {"transforms": [{"kind": "mixup"}, {"kind": "cutmix"}]}},
        soft_labels={"kind": "online"},
    )
    assert "module." in " ".join(messages(done, "weights_read"))
    assert done.keeps(*COLOURED)


@pytest.mark.slow
def test_torchvision_on_folders_of_images_with_stored_views(shop: Shop) -> None:
    teacher = Torchvision(name="mobilenet_v3_small")
    transforms = ["crop", "flip", "jitter", "random_augment", "erasing"]
    done = shop.run(
        teacher=checkpoint(
            shop.bare_weights(teacher, RGB, "safetensors"), architecture=teacher.model_dump(mode="json")
        ),
        student={"kind": "timm", "name": "resnet10t"}, data=shop.image_folders(),
        training={"augmentation": {"transforms": [{"kind": kind} for kind in transforms]}},
        soft_labels={"kind": "views", "views": 2},
    )
    assert done.notes()["soft_labels"] == {"mode": "stored", "views": 2}
    assert done.model.label_names == ("column", "corner", "row")
    assert done.keeps(*COLOURED)


def test_transformers_on_parquet(shop: Shop) -> None:
    teacher = Transformers(model_type="vit", config=dict(SMALL_VIT))
    done = shop.run(
        teacher=checkpoint(
            shop.bare_weights(teacher, RGB, "safetensors"), architecture=teacher.model_dump(mode="json")
        ),
        student={"kind": "torchvision", "name": "squeezenet1_1"}, data=shop.parquet(),
        training={"balanced_sampling": True},
    )
    assert done.keeps(*COLOURED)


@pytest.mark.slow
def test_a_teacher_trained_on_what_datasets_saved(shop: Shop) -> None:
    done = shop.run(
        teacher={"kind": "train", "architecture": {"kind": "cnn", "channels": [4]}, "training": {"epochs": 2}},
        student={"kind": "wrn", "depth": 10, "widen_factor": 1}, data=shop.hugging_face(),
        training={"augmentation": {"transforms": [{"kind": "flip"}]}}, soft_labels={"kind": "auto"},
    )
    assert done.notes()["soft_labels"]["mode"] == "online"
    assert done.keeps(*COLOURED)


def test_a_classifier_of_scikit_learn_on_csv(shop: Shop) -> None:
    (rows, labels), (test, test_labels) = table(NUM_TRAIN, 0), table(NUM_TEST, 1)
    fitted = LogisticRegression().fit(rows, labels)
    model = to_onnx(fitted, rows[:1], options={"zipmap": False})

    def file(name: str, rows: Any, labels: Any) -> str:  # noqa: ANN401 - NumPy's
        return shop.csv({**{f"x{number}": rows[:, number].tolist() for number in range(4)}, "label": labels}, name)

    done = shop.run(
        teacher={"kind": "onnx", "artifact": shop.upload("forest.onnx", model.SerializeToString())},
        data={
            "kind": "csv", "train": {"artifact": file("train", rows, labels)},
            "test": {"artifact": file("test", test, test_labels)},
        },
        export={"formats": ["safetensors", "onnx"]},
    )
    assert done.subject("teacher").scores.accuracy == pytest.approx(fitted.score(test, test_labels))
    assert done.report.speed_ratio
    assert done.keeps([dict(zip(("x0", "x1", "x2", "x3"), row, strict=True)) for row in test.tolist()], test_labels)


def test_several_teachers_of_different_kinds(shop: Shop) -> None:
    done = shop.run(
        teacher={"kind": "ensemble", "members": [
            {"teacher": checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)), "weight": 2},
            {"teacher": checkpoint(shop.checkpoint(Mlp(hidden=[8]), SHAPE))},
        ]},
        data=shop.blobs(), objective={"terms": [{"kind": "kl"}, {"kind": "dist"}]},
    )
    assert done.keeps(*GREY)


def said(labels: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - NumPy's
    """What a good teacher said of these classes, in each form, and its arrays."""
    share = np.full((len(labels), NUM_CLASSES), 0.1, np.float32)
    share[np.arange(len(labels)), labels] = 0.8
    second = (labels + 1) % NUM_CLASSES
    return {
        "vectors": {"said": share},
        "top_k": {"who": np.stack([labels, second], 1).astype(np.int64), "how": np.array([[0.8, 0.1]] * len(labels))},
        "votes": {"raters": np.stack([labels, labels, second], 1).astype(np.int64)},
    }


@pytest.mark.parametrize(("form", "columns"), [
    ("vectors", {"values": "said"}), ("top_k", {"indices": "who", "values": "how"}), ("votes", {"votes": "raters"}),
])
def test_soft_labels_that_come_with_unlabelled_data(shop: Shop, form: str, columns: dict[str, str]) -> None:
    (train, labels), (test, test_labels) = blobs(NUM_TRAIN, 0), GREY
    done = shop.run(
        teacher={"kind": "soft_labels"}, training={"epochs": 20},
        data=shop.npz_pair(
            {"inputs": train, **said(labels)[form]}, {"inputs": test, **said(test_labels)[form]},
            split={"labels": None, "soft_labels": {"kind": form, **columns}},
        ),
    )
    assert np.isclose(np.mean(done.classes(test) == test_labels), done.subject().scores.agreement or 0)
    assert (done.subject().scores.agreement or 0) > 0.6


@pytest.mark.parametrize("student", [
    {"kind": "layers", "keep": {"layer1": [0], "layer2": [0], "layer3": [0]}},
    {"kind": "pruned", "ratio": 0.5, "of": "macs", "round_to": 4},
], ids=["layers", "pruned"])
def test_students_made_of_the_teacher(shop: Shop, student: dict[str, Any]) -> None:
    done = shop.run(
        teacher=checkpoint(shop.checkpoint(Resnet(depth=14, channels=[8, 16, 16]), SHAPE)), data=shop.blobs(),
        student=student,
    )
    small, big = done.subject().num_parameters or 0, done.subject("teacher").num_parameters or 0
    assert 0 < small < 0.7 * big
    assert done.keeps(*GREY)


def test_a_student_that_begins_with_weights(shop: Shop) -> None:
    weights = shop.checkpoint(Mlp(hidden=[6]), SHAPE)
    done = shop.run(
        teacher=checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)), data=shop.blobs(), initial_weights=weights,
        training={"epochs": 1, "optimizer": {"kind": "sgd", "learning_rate": 1e-9}},
    )
    fresh = shop.run(
        teacher=checkpoint(weights), data=shop.blobs(), student={"kind": "mlp", "hidden": [4]}, training={"epochs": 1}
    )
    assert done.subject().scores.accuracy == fresh.subject("teacher").scores.accuracy
    assert done.keeps(*GREY)


# What cannot work is refused before anything is trained, at its field, with what to do instead


def refused(shop: Shop, **sections: Any) -> tuple[str, str | None, str]:  # noqa: ANN401 - JSON
    """Code, field and message of the problem that a plan of this job answers with."""
    with pytest.raises(StillhouseApiError) as caught:
        shop.client.plan(shop.spec(**sections), timeout=120)
    assert caught.value.status == 422
    first = next(iter(caught.value.errors), None)
    if first is not None:
        return caught.value.code, first.pointer, first.detail
    return caught.value.code, caught.value.param, caught.value.message


def pair(student: str = "body.0", teacher: str = "body.0", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"terms": [{"pairs": [{"student": student, "teacher": teacher}], **more}]}


def test_a_misspelt_layer_is_told_with_the_nearest(shop: Shop) -> None:
    code, param, message = refused(
        shop, teacher=checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)), data=shop.blobs(),
        student={"kind": "cnn", "channels": [4]}, objective=pair(kind="fitnet", teacher="bodi.0"),
    )
    assert (code, param) == ("unknown_layer", "/objective/terms/0/pairs/0/teacher")
    assert "body.0" in message


def test_feature_shapes_that_nothing_can_project_are_told(shop: Shop) -> None:
    code, param, message = refused(
        shop, teacher=checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)), data=shop.blobs(),
        objective=pair(kind="fitnet", student="body.1"),
    )
    assert code == "incompatible_layers"
    assert str(param).startswith("/objective/terms/0")
    assert "student" in message


@pytest.mark.parametrize(("sections", "field", "told"), [
    (
        {"task": {"kind": "multi_label"}, "objective": {"terms": [{"kind": "kl"}]}}, "/objective/terms/0",
        "not for multi_label; use bce",
    ),
    ({"objective": {"terms": [{"kind": "kl"}, {"kind": "cross_entropy"}]}}, "/objective/terms/1", "no labels"),
    ({"objective": {"terms": [{"kind": "mse"}]}}, "/objective/terms/0", "mse needs logits"),
    (
        {"training": {"augmentation": {"transforms": [{"kind": "mixup"}]}}}, "/training/augmentation",
        "leave mixup and cutmix out",
    ),
], ids=["softmax for several labels", "labels that are not there", "logits of probabilities", "mixup of given labels"])
def test_what_data_or_teacher_cannot_serve_is_told(
    shop: Shop, sections: dict[str, Any], field: str, told: str
) -> None:
    images, labels = blobs(NUM_TRAIN, 0)
    arrays = {"inputs": images, **said(labels)["vectors"]}
    data = shop.npz_pair(
        arrays, arrays, split={"labels": None, "soft_labels": {"kind": "vectors", "values": "said"}}
    )
    code, param, message = refused(shop, teacher={"kind": "soft_labels"}, data=data, **sections)
    assert (code, param) == ("invalid_spec", field)
    assert told in message


def test_crd_without_labels_is_told(shop: Shop) -> None:
    found = refused(
        shop, teacher=checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE)),
        data=shop.blobs(split={"labels": None}), student={"kind": "cnn", "channels": [4]}, objective=pair(kind="crd"),
    )
    assert found == (
        "invalid_spec", "/objective/terms/0", "crd reads labels, but data.train has no labels; leave it out"
    )


def test_an_onnx_model_of_other_inputs_is_told(shop: Shop) -> None:
    rows, labels = table(NUM_TRAIN, 0)
    model = to_onnx(LogisticRegression().fit(rows[:, :3], labels), rows[:1, :3])
    code, param, message = refused(
        shop, teacher={"kind": "onnx", "artifact": shop.upload("narrow.onnx", model.SerializeToString())},
        data=shop.npz_pair({"inputs": rows, "labels": labels}, {"inputs": rows, "labels": labels}),
    )
    assert (code, param) == ("input_shape_mismatch", "/teacher")
    assert "takes samples of [3], and those of the data are [4]" in message


def test_members_of_different_classes_are_told(shop: Shop) -> None:
    members = [checkpoint(shop.checkpoint(Cnn(channels=[4]), SHAPE, outputs)) for outputs in (3, 4)]
    code, param, _ = refused(
        shop, teacher={"kind": "ensemble", "members": [{"teacher": member} for member in members]}, data=shop.blobs()
    )
    assert (code, param) == ("output_width_mismatch", "/teacher/members/1/teacher/artifact")


def test_pruning_that_leaves_nothing_is_told(shop: Shop) -> None:
    code, param, message = refused(
        shop, teacher=checkpoint(shop.checkpoint(Resnet(depth=8, channels=[8, 8, 8]), SHAPE)), data=shop.blobs(),
        student={"kind": "pruned", "ratio": 0.01},
    )
    assert (code, param) == ("underivable_student", "/student/ratio")
    assert "choose another kind of student" in message
