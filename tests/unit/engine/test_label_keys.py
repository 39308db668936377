"""No two things that could make another label share a key, and nothing else keeps jobs from sharing labels."""

from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillhouse.contract.spec import Augmentation, Data, JobSpec
from tests.fixtures.labels import KEY
from tests.fixtures.lessons import Lesson
from worker.engine.softlabels import Labelled
from worker.engine.softlabels import keys as keys_module
from worker.engine.softlabels.keys import (
    LEFT_OUT,
    LabelKey,
    augmentation_part,
    data_part,
    digest_of_tensors,
    environment_part,
    teacher_part,
)
from worker.engine.softlabels.plan import plan

ART = {name: f"art_{name:0<20}" for name in ("teacher", "again", "other", "x", "y", "z", "w")}
DIGESTS = {ART[name]: digest * 64 for name, digest in zip(ART, "aabcdef", strict=True)}  # `again` has the same bytes

NPZ: dict[str, Any] = {
    "teacher": {
        "kind": "checkpoint", "artifact": ART["teacher"],
        "architecture": {"kind": "mlp", "hidden": [4], "num_classes": 3, "input_shape": [8]},
        "normalization": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
    },
    "student": {"kind": "mlp"},
    "data": {
        "kind": "npz", "train": {"artifact": ART["x"]}, "validation": {"artifact": ART["y"]},
        "test": {"artifact": ART["z"]}, "num_classes": 3, "label_names": ["a", "b", "c"],
        "normalization": {"mean": [0.0], "std": [1.0]},
    },
    "training": {"augmentation": {"transforms": [{"kind": "shift", "pixels": 2}, {"kind": "flip"}]}},
}
IDX = NPZ | {"data": NPZ["data"] | {
    "kind": "idx", "train": {"inputs": ART["x"], "labels": ART["y"]}, "validation": None, "test": None,
}}
CNN = NPZ | {"teacher": NPZ["teacher"] | {"architecture": {"kind": "cnn", "num_classes": 3, "input_shape": [1, 8, 8]}}}

# Of fields of the sections that go into keys: another value.
ASKS_FOR_OTHER_LABELS: dict[str, list[tuple[dict[str, Any], str, Any]]] = {
    "CheckpointTeacher.artifact": [(NPZ, "/teacher/artifact", ART["other"])],
    "CheckpointTeacher.architecture": [(NPZ, "/teacher/architecture", None)],
    "CheckpointTeacher.normalization": [(NPZ, "/teacher/normalization", None)],
    "CheckpointTeacher.kind": [],
    "Normalization.scale": [(NPZ, "/teacher/normalization/scale", 2.0)],
    "Normalization.mean": [(NPZ, "/teacher/normalization/mean", [0.5])],
    "Normalization.std": [(NPZ, "/teacher/normalization/std", [0.5])],
    "Mlp.kind": [(NPZ, "/teacher/architecture", {"kind": "cnn"})],
    "Mlp.hidden": [(NPZ, "/teacher/architecture/hidden", [5])],
    "Mlp.batch_norm": [(NPZ, "/teacher/architecture/batch_norm", True)],
    "Mlp.activation": [(NPZ, "/teacher/architecture/activation", "gelu")],
    "Mlp.dropout": [(NPZ, "/teacher/architecture/dropout", 0.5)],
    "Mlp.num_classes": [(NPZ, "/teacher/architecture/num_classes", None)],
    "Mlp.input_shape": [(NPZ, "/teacher/architecture/input_shape", None)],
    "Cnn.kind": [(CNN, "/teacher/architecture", {"kind": "mlp"})],
    "Cnn.channels": [(CNN, "/teacher/architecture/channels", [5])],
    "Cnn.blocks_per_stage": [(CNN, "/teacher/architecture/blocks_per_stage", 2)],
    "Cnn.batch_norm": [(CNN, "/teacher/architecture/batch_norm", False)],
    "Cnn.hidden": [(CNN, "/teacher/architecture/hidden", 5)],
    "Cnn.activation": [(CNN, "/teacher/architecture/activation", "gelu")],
    "Cnn.dropout": [(CNN, "/teacher/architecture/dropout", 0.5)],
    "Cnn.num_classes": [(CNN, "/teacher/architecture/num_classes", None)],
    "Cnn.input_shape": [(CNN, "/teacher/architecture/input_shape", None)],
    "NpzData.kind": [(NPZ, "/data", IDX["data"])],
    "NpzData.layout": [(NPZ, "/data/layout", "chw")],
    "NpzData.train": [(NPZ, "/data/train", {"artifact": ART["w"]})],
    "IdxData.kind": [(IDX, "/data", NPZ["data"])],
    "IdxData.layout": [(IDX, "/data/layout", "chw")],
    "IdxData.train": [(IDX, "/data/train", {"inputs": ART["w"], "labels": ART["y"]})],
    "NpzSplit.artifact": [(NPZ, "/data/train/artifact", ART["w"])],
    "NpzSplit.inputs": [(NPZ, "/data/train/inputs", "others"), (NPZ, "/data/train/inputs", "x" * 64)],
    "IdxSplit.inputs": [(IDX, "/data/train/inputs", ART["w"])],
    "Augmentation.transforms": [
        (NPZ, "/training/augmentation/transforms", [{"kind": "flip"}, {"kind": "shift", "pixels": 2}]),
        (NPZ, "/training/augmentation", None),
    ],
    "Augmentation.seed": [(NPZ, "/training/augmentation/seed", 1)],
    "Shift.kind": [],
    "Shift.pixels": [(NPZ, "/training/augmentation/transforms/0/pixels", 3)],
    "Flip.kind": [],
}
CHANGES_NOTHING: dict[str, list[tuple[dict[str, Any], str, Any]]] = {
    "CheckpointTeacher.artifact": [(NPZ, "/teacher/artifact", ART["again"])],
    # Of the training split's labels; the ids of what is drawn are told apart by their digest.
    **{
        f"{kind}.{field}": [(base, f"/data/{field}", value)]
        for kind, base in (("NpzData", NPZ), ("IdxData", IDX))
        for field, value in {
            "validation_fraction": 0.2, "split_seed": 1, "num_classes": None, "label_names": None,
            "normalization": None,
        }.items()
    },
    "NpzData.validation": [(NPZ, "/data/validation", None)],
    "NpzData.test": [(NPZ, "/data/test", None)],
    "IdxData.validation": [(IDX, "/data/validation", {"inputs": ART["z"]})],
    "IdxData.test": [(IDX, "/data/test", {"inputs": ART["z"]})],
    "NpzSplit.labels": [(NPZ, "/data/train/labels", "classes")],
    "IdxSplit.labels": [(IDX, "/data/train/labels", ART["z"])],
    # Sections that go into no key.
    "JobSpec.student": [(NPZ, "/student", {"kind": "mlp", "hidden": [9]})],
    "JobSpec.objective": [(NPZ, "/objective", {"terms": [{"kind": "kl", "temperature": 7.0}]})],
    "JobSpec.seed": [(NPZ, "/seed", 5)],
    "JobSpec.name": [(NPZ, "/name", "another")],
    "JobSpec.control": [(NPZ, "/control", False)],
    "Training.epochs": [(NPZ, "/training/epochs", 3)],
    "Training.batch_size": [(NPZ, "/training/batch_size", 7)],
}


def with_value(spec: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    """A copy of the spec with another value at the pointer."""
    first, _, rest = pointer.lstrip("/").partition("/")
    if not rest:
        return spec | {first: value}
    inner = spec[first]
    if isinstance(inner, list):
        place, _, field = rest.partition("/")
        changed = [*inner]
        changed[int(place)] = inner[int(place)] | {field: value}
        return spec | {first: changed}
    return spec | {first: with_value(inner, rest, value)}


def digest_of(raw: dict[str, Any], split: str = "train") -> str:
    spec = JobSpec.model_validate(raw)
    parts = replace(
        KEY, teacher=teacher_part(spec, DIGESTS, None), data=data_part(spec, split, DIGESTS),
        augmentation=augmentation_part(spec.training.augmentation),
    )
    return parts.digest


def flattened(changes: dict[str, list[tuple[dict[str, Any], str, Any]]]) -> list[Any]:
    return [
        pytest.param(base, pointer, value, id=f"{name} {pointer}")
        for name, of_field in changes.items() for base, pointer, value in of_field
    ]


@pytest.mark.parametrize(("base", "pointer", "value"), flattened(ASKS_FOR_OTHER_LABELS))
def test_what_could_change_a_label_changes_the_key(base: dict[str, Any], pointer: str, value: object) -> None:
    assert digest_of(with_value(base, pointer, value)) != digest_of(base)


@pytest.mark.parametrize(("base", "pointer", "value"), flattened(CHANGES_NOTHING))
def test_what_changes_no_label_changes_no_key(base: dict[str, Any], pointer: str, value: object) -> None:
    assert digest_of(with_value(base, pointer, value)) == digest_of(base)


SPLITS: dict[str, dict[str, Any]] = {
    "npz": {"artifact": ART["x"]},
    "idx": {"inputs": ART["x"], "labels": ART["y"]},
    "csv": {"artifact": ART["x"], "labels": "class"},
    "parquet": {"files": [ART["x"]], "inputs": "image", "labels": "class"},
    "images": {"artifact": ART["x"]},
    "hugging_face": {"artifact": ART["x"], "inputs": "image", "labels": "class"},
}


def test_every_kind_of_data_is_tested() -> None:
    assert set(SPLITS) == {kind.model_fields["kind"].default for kind in get_args(get_args(Data)[0])}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_field_that_nobody_thought_of_is_in_the_key(kind: str) -> None:
    spec = JobSpec.model_validate(NPZ | {"data": {"kind": kind, "train": SPLITS[kind]}, "training": {}})
    part = data_part(spec, "train", DIGESTS)
    assert set(part) == {*type(spec.data).model_fields, "split"} - LEFT_OUT["data"]
    left_out = LEFT_OUT["split"] if kind in {"idx", "npz"} else set[str]()
    assert set(part["split"]) == set(type(spec.data.train).model_fields) - left_out


@pytest.mark.parametrize("teacher", [
    NPZ["teacher"],
    {"kind": "onnx", "artifact": ART["teacher"]},
    {"kind": "ensemble", "members": [{"teacher": NPZ["teacher"]}, {"teacher": {"kind": "onnx", "artifact": ART["w"]}}]},
], ids=lambda teacher: teacher["kind"])
def test_all_that_is_said_of_a_teacher_is_in_the_key(teacher: dict[str, Any]) -> None:
    spec = JobSpec.model_validate(NPZ | {"teacher": teacher})
    assert set(teacher_part(spec, DIGESTS, None)) == set(type(spec.teacher).model_fields)


def test_members_of_an_ensemble_are_known_by_their_digests() -> None:
    def with_second(artifact: str) -> str:
        members = [{"teacher": NPZ["teacher"]}, {"teacher": NPZ["teacher"] | {"artifact": artifact}}]
        return digest_of(NPZ | {"teacher": {"kind": "ensemble", "members": members}})

    assert with_second(ART["teacher"]) == with_second(ART["again"]) != with_second(ART["other"])


def test_another_label_column_leaves_other_inputs() -> None:
    table = NPZ | {"data": {"kind": "csv", "train": SPLITS["csv"]}, "training": {}}
    assert digest_of(table) != digest_of(with_value(table, "/data/train/labels", "other"))


def test_what_is_left_out_is_what_the_table_says() -> None:
    changes_nothing = {name.partition(".")[2] for name in CHANGES_NOTHING if name.startswith(("NpzData", "IdxData"))}
    assert LEFT_OUT["data"] == changes_nothing | {"train"}  # which stands there as `split`
    assert LEFT_OUT["split"] == {"labels"}
    assert LEFT_OUT["teacher"] == LEFT_OUT["augmentation"] == set()


def test_no_name_in_a_spec_can_be_taken_for_a_digest() -> None:
    of_id, of_digest = (with_value(NPZ, "/data/train/inputs", name) for name in (ART["x"], DIGESTS[ART["x"]]))
    assert digest_of(of_id) != digest_of(of_digest)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_are_known_by_their_own_file(split: str) -> None:
    assert digest_of(NPZ, split) != digest_of(NPZ, "train")
    assert digest_of(with_value(NPZ, f"/data/{split}", {"artifact": ART["w"]}), split) != digest_of(NPZ, split)
    assert digest_of(with_value(NPZ, "/data/train", {"artifact": ART["w"]}), split) == digest_of(NPZ, split)


def test_a_drawn_validation_split_is_known_by_the_training_split() -> None:
    drawn = with_value(NPZ, "/data/validation", None)
    assert digest_of(with_value(drawn, "/data/train", {"artifact": ART["w"]}), "validation") != digest_of(
        drawn, "validation"
    )


OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "owner": st.text(), "gives": st.sampled_from(["probabilities", "values"]), "ids": st.text(), "split": st.text(),
    "code": st.text(), "form": st.just("exact"),
    "augmentation": st.dictionaries(st.text(), st.integers()),
    **dict.fromkeys(("view", "shard", "num_shard_rows", "chunk", "format"), st.integers(0, 10**9)),
    **dict.fromkeys(
        ("teacher", "identity", "data", "environment", "packages"),
        st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text()), max_size=4),
    ),
}


def test_every_component_can_be_changed() -> None:
    assert {field.name for field in fields(LabelKey)} == OTHERS.keys()


@given(st.data())
def test_keys_are_equal_exactly_when_all_components_are(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(OTHERS)), unique=True))
    one = replace(KEY, **{name: data.draw(OTHERS[name]) for name in names})
    changed = data.draw(st.sampled_from(sorted(OTHERS)))
    other = replace(one, **{changed: data.draw(OTHERS[changed])})
    is_same = getattr(one, changed) == getattr(other, changed)
    assert (one.digest == other.digest) == is_same
    assert (one.text == other.text) == is_same
    assert len(one.digest) == 64


def test_a_trained_teacher_is_known_by_its_weights_alone() -> None:
    def part(**training: object) -> dict[str, Any]:
        teacher = {"kind": "train", "architecture": {"kind": "mlp"}, "training": training}
        return teacher_part(JobSpec.model_validate(NPZ | {"teacher": teacher}), DIGESTS, model)

    model = nn.Linear(2, 2)
    before = part(epochs=2)
    assert part(epochs=3, batch_size=5) == before
    with torch.no_grad():
        model.bias[1] += torch.finfo(torch.float32).eps
    assert part(epochs=2) != before


@pytest.mark.parametrize("other", [
    {"a": torch.zeros(2, 3)}, {"a": torch.zeros(6)}, {"b": torch.zeros(3, 2)},
    {"a": torch.zeros(3, 2, dtype=torch.int32)}, {"a": -torch.zeros(3, 2)},
    {"a": torch.zeros(3, 2), "b": torch.ones(1)},
])
def test_tensors_are_known_by_name_type_shape_and_bits(other: dict[str, torch.Tensor]) -> None:
    assert digest_of_tensors(other) != digest_of_tensors({"a": torch.zeros(3, 2)})
    assert digest_of_tensors({"a": torch.zeros(2, 3).T}) == digest_of_tensors({"a": torch.zeros(3, 2)})


def test_threads_and_device_are_told() -> None:
    assert environment_part("cpu", 1) != environment_part("cpu", 4)
    assert environment_part("cpu", 2)["device"] == "cpu"


def test_a_change_of_the_code_asks_for_new_labels(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    before = keys_module._digest_of_code()  # noqa: SLF001 - read once, at import
    assert before == keys_module.CODE
    (tmp_path / "worker/engine/data").mkdir(parents=True)
    (tmp_path / "worker/engine/data/augment.py").write_text("1")
    monkeypatch.setattr(keys_module, "_ROOT", tmp_path)
    first = keys_module._digest_of_code()  # noqa: SLF001 - as above
    (tmp_path / "worker/engine/data/augment.py").write_text("2")
    assert len({before, first, keys_module._digest_of_code()}) == 3  # noqa: SLF001 - as above


def test_a_plan_has_a_key_of_its_own_for_every_shard(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lesson.train(lesson.spec())
    monkeypatch.setattr("worker.engine.softlabels.plan.NUM_SHARD_ROWS", 16)
    part = job.prepared.dataset.train

    def made(split: Labelled, owner: str = "ann") -> list[list[str]]:
        store = lesson.labels("plans")
        store.owner = owner
        views = plan(split, job.spec, job.teacher, trained=None, store=store, environment={})
        assert [torch.cat([shard.ids for shard in view]).tolist() for view in views] == [part.ids.tolist()] * len(views)
        return [[shard.key.digest for shard in view] for view in views]

    augmentation = Augmentation.model_validate({"transforms": [{"kind": "flip"}]})
    augmented = made(Labelled(part, 3, augmentation, is_exact=False))
    assert [len(view) for view in augmented] == [5, 5, 5]  # 72 samples
    every = [
        *augmented, *made(Labelled(part)), *made(Labelled(part, is_exact=False)),
        *made(Labelled(part, 3, augmentation, is_exact=False), owner="bob"),
    ]
    digests = [digest for view in every for digest in view]
    assert len(set(digests)) == len(digests)
    assert made(Labelled(part, 3, augmentation, is_exact=False)) == augmented
