"""A bundle of every task: exported, proven, loaded, asked, and tried from the command line."""

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import stillhouse
from stillhouse.cli.commands import app
from stillhouse.contract.spec import Classification, Embedding, MultiLabel, Regression
from stillhouse.contract.spec import Task as Section
from stillhouse.models.answers import LabelSet, Prediction, TargetValues, Vector
from stillhouse.models.bundle import CompressedModel, InvalidBundleError
from tests.fixtures.bundles import edit_json, rewrite
from tests.fixtures.results import Trained, make_trained
from worker.engine.export import Exported

SECTIONS: dict[str, Section] = {
    "classification": Classification(), "multi_label": MultiLabel(threshold=0.45), "regression": Regression(),
    "embedding": Embedding(),
}
NAMES = ["red", "green", "blue"]


@dataclass(frozen=True)
class Made:
    """What an export left."""

    trained: Trained
    exported: Exported
    bundle: Path
    model: CompressedModel

    @property
    def outputs(self) -> torch.Tensor:
        """Of the model that was exported, for the samples it was proven on."""
        self.trained.student.eval()
        with torch.inference_mode():
            outputs: torch.Tensor = self.trained.student(self.trained.preprocessing(self.trained.evaluation.inputs))
        return outputs


@pytest.fixture(scope="module", params=list(SECTIONS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    names = [] if request.param == "embedding" else NAMES
    trained = make_trained(folder, is_table=True, label_names=names, task=SECTIONS[request.param], num_outputs=3)
    exported = trained.export(folder)
    bundle = folder / "export" / "student.zip"
    return Made(trained, exported, bundle, stillhouse.load(bundle))


def test_the_bundle_tells_its_task_and_the_names_of_its_outputs(made: Made) -> None:
    task = made.trained.spec.task
    assert made.model.task == task
    assert made.model.label_names == tuple(made.trained.label_names)
    assert made.model.num_outputs == 3
    with zipfile.ZipFile(made.bundle) as archive:
        assert json.loads(archive.read("config.json"))["task"] == task.model_dump()
        assert json.loads(archive.read("labels.json")) == {
            "label_names": list(made.trained.label_names), "num_outputs": 3
        }
        graph = onnx.load_model_from_string(archive.read("model.onnx")).graph
    names = {"regression": "values", "embedding": "embedding"}
    assert [output.name for output in graph.output] == [names.get(task.kind, "logits")]


def test_files_are_proven_by_numbers_and_by_what_the_task_decides(made: Made) -> None:
    decides = made.trained.spec.task.kind in {"classification", "multi_label"}
    for parity in made.exported.report.parity:
        assert parity.max_output_difference < 1e-5
        assert (parity.same_decisions, parity.accuracy_difference) == ((1, 0) if decides else (None, None))


def test_answers_are_what_the_task_asks_for(made: Made) -> None:
    raw, outputs = made.trained.evaluation.inputs[:9], made.outputs[:9]
    answers = made.model.predict(raw, batch_size=4)
    chances = (1 / (1 + np.exp(-outputs.double().numpy()))).round(12)
    torch.testing.assert_close(made.model.outputs(raw), outputs)
    for row, answer in enumerate(answers):
        match made.trained.spec.task.kind:
            case "classification":
                assert isinstance(answer, Prediction)
                assert answer.index == int(outputs[row].argmax())
            case "multi_label":
                assert isinstance(answer, LabelSet)
                held = {name: chance for name, chance in zip(NAMES, chances[row], strict=True) if chance >= 0.45}
                assert answer.labels == pytest.approx(held, abs=1e-6)
                assert list(answer.labels.values()) == sorted(answer.labels.values(), reverse=True)
                assert answer.probabilities == pytest.approx(tuple(chances[row]), abs=1e-6)
            case "regression":
                assert isinstance(answer, TargetValues)
                assert answer.values == pytest.approx(dict(zip(NAMES, outputs[row].tolist(), strict=True)), abs=1e-6)
            case _:
                assert isinstance(answer, Vector)
                assert answer.values == pytest.approx(tuple(outputs[row].tolist()), abs=1e-6)


def test_only_classes_and_labels_have_probabilities(made: Made) -> None:
    raw = made.trained.evaluation.inputs[:2]
    if made.trained.spec.task.kind in {"classification", "multi_label"}:
        assert made.model.probabilities(raw).shape == (2, 3)
    else:
        with pytest.raises(ValueError, match="no probabilities"):
            made.model.probabilities(raw)


def test_one_sample_and_no_sample_are_answered(made: Made) -> None:
    raw = made.trained.evaluation.inputs
    assert made.model.predict(raw[0]) == made.model.predict(raw[:1])
    assert made.model.predict(raw[:0]) == []


def test_the_command_line_shows_answers_of_every_task(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", made.trained.evaluation.inputs[:3].numpy())
    kind = made.trained.spec.task.kind
    shown = CliRunner().invoke(app, ["predict", str(made.bundle), str(tmp_path / "rows.npy")])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    header = {
        "classification": ["SAMPLE", "ANSWER", "PROBABILITY"],
        "multi_label": ["SAMPLE", "LABELS", "AND", "THEIR", "PROBABILITIES"],
        "regression": ["SAMPLE", *NAMES], "embedding": ["SAMPLE", "VECTOR"],
    }[kind]
    assert lines[0].split() == header
    assert len(lines) == 4
    if kind == "regression":
        assert lines[1].split()[1:] == [f"{value:.4g}" for value in made.outputs[0].tolist()]
    asked = CliRunner().invoke(app, ["predict", str(made.bundle), str(tmp_path / "rows.npy"), "--json"])
    told = json.loads(asked.stdout)
    assert told["task"]["kind"] == kind
    assert told["label_names"] == list(made.trained.label_names)
    keys = {
        "classification": {"label", "index", "probability", "probabilities"},
        "multi_label": {"labels", "probabilities"}, "regression": {"values"}, "embedding": {"values"},
    }[kind]
    assert [set(answer) for answer in told["predictions"]] == [keys] * 3


def test_wide_answers_are_cut_for_the_terminal(tmp_path: Path) -> None:
    trained = make_trained(tmp_path, is_table=True, label_names=[], task=Embedding(), num_outputs=40)
    spec = trained.spec.model_copy(update={"export": trained.spec.export.model_copy(update={
        "formats": ["safetensors"]
    })})
    replace(trained, spec=spec).export(tmp_path)
    np.save(tmp_path / "rows.npy", trained.evaluation.inputs[:1].numpy())
    shown = CliRunner().invoke(app, ["predict", str(tmp_path / "export" / "student.zip"), str(tmp_path / "rows.npy")])
    assert "... 34 more" in shown.stdout


def test_a_bundle_without_the_names_that_its_task_needs_is_refused(made: Made, tmp_path: Path) -> None:
    nameless = rewrite(made.bundle, tmp_path / "nameless.zip", lambda m: edit_json(m, "labels.json", label_names=[]))
    if made.trained.spec.task.kind == "embedding":
        assert stillhouse.load(nameless).label_names == ()
    else:
        with pytest.raises(InvalidBundleError, match="names none of the"):
            stillhouse.load(nameless)
    wide = rewrite(
        made.bundle, tmp_path / "wide.zip", lambda m: edit_json(m, "labels.json", label_names=[], num_outputs=4)
    )
    with pytest.raises(InvalidBundleError, match=r"3 outputs, and labels\.json tells 4"):
        stillhouse.load(wide)


def test_partly_labelled_samples_are_compared_where_they_have_labels(tmp_path: Path) -> None:
    trained = make_trained(tmp_path, is_table=True, label_names=NAMES)
    outputs = trained.student.eval()(trained.preprocessing(trained.evaluation.inputs)).argmax(1)
    mask = torch.arange(50) % 2 == 0
    partly = replace(trained.evaluation, labels=torch.where(mask, outputs, 999), mask=mask)
    spec = trained.spec.model_copy(update={"export": trained.spec.export.model_copy(update={
        "formats": ["safetensors"]
    })})
    exported = replace(trained, spec=spec, evaluation=partly).export(tmp_path)
    assert [parity.accuracy_difference for parity in exported.report.parity] == [0]
    nobody = replace(partly, mask=torch.zeros(50, dtype=torch.bool))
    exported = replace(trained, spec=spec, evaluation=nobody).export(tmp_path)
    assert [parity.accuracy_difference for parity in exported.report.parity] == [None]
