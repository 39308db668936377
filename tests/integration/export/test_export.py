import hashlib
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch
from torch import Tensor

import stillhouse
from stillhouse.contract.failures import ExportMismatchError
from stillhouse.contract.report import Report
from stillhouse.contract.spec import Export, Pruned, Timm
from stillhouse.models import count_parameters, load_checkpoint
from stillhouse.models.answers import Prediction
from stillhouse.models.bundle import CompressedModel
from tests.fixtures.networks import fitted, lively
from tests.fixtures.results import TEACHER, Trained, make_trained
from worker.engine.export import Exported
from worker.engine.export.bundle import _zip
from worker.engine.export.prove import prove
from worker.engine.students import derive_student

CONTENTS = {
    "README.md", "config.json", "labels.json", "manifest.json", "model.onnx", "model.safetensors", "preprocessing.json",
    "report.html", "report.json",
}


@pytest.mark.slow
def test_a_pruned_model_of_a_library_goes_the_whole_way(tmp_path: Path) -> None:
    base = fitted(Timm(name="resnet10t"), [1, 12, 10], num_classes=10)
    pruned = derive_student(Pruned(ratio=0.5), lively(base), base, torch.randn(2, 1, 12, 10))
    exported = make_trained(tmp_path, architecture=pruned.architecture).export(tmp_path / "scratch")
    assert {parity.format for parity in exported.report.parity} == {"safetensors", "onnx"}
    bundle = next(file.file for file in exported.files if file.role == "bundle")
    loaded = stillhouse.load(tmp_path / "scratch" / bundle)
    assert sum(parameter.numel() for parameter in loaded.parameters()) < count_parameters(lively(base))
    assert json.loads((tmp_path / "scratch/export/manifest.json").read_text())["versions"]["timm"]


def test_the_bundle_holds_all_that_was_promised(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert set(archive.namelist()) == CONTENTS
        assert archive.testzip() is None


def test_the_manifest_tells_what_it_was_made_from(bundle: Path, trained: Trained) -> None:
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for name, record in manifest["files"].items():
            content = archive.read(name)
            assert record == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert set(manifest["files"]) == CONTENTS - {"manifest.json"}
    digest = hashlib.sha256(trained.inputs[TEACHER].read_bytes()).hexdigest()
    assert manifest["teacher"] == {"kind": "checkpoint", "artifact": TEACHER, "sha256": digest}
    assert set(manifest["data"]) == {
        "/data/train/inputs", "/data/train/labels", "/data/test/inputs", "/data/test/labels",
    }
    assert manifest["spec"] == trained.spec.model_dump(mode="json", exclude_unset=True)
    assert manifest["seed"] == 7
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_report_tells_how_the_files_compare(exported: Exported, bundle: Path) -> None:
    assert [(each.format, each.num_samples, each.same_decisions) for each in exported.report.parity] == [
        ("safetensors", 50, 1.0), ("onnx", 50, 1.0),
    ]
    assert all(each.max_output_difference < 1e-5 for each in exported.report.parity)
    assert all(each.accuracy_difference == 0 for each in exported.report.parity)
    assert exported.report.phase_seconds["exporting"] > 0
    with zipfile.ZipFile(bundle) as archive:
        assert Report.model_validate_json(archive.read("report.json")) == exported.report


def predicted(model: CompressedModel, raw: Tensor, **how: int) -> list[Prediction]:
    """The classes that the model answers with."""
    return [answer for answer in model.predict(raw, **how) if isinstance(answer, Prediction)]


def test_the_loaded_model_answers_like_the_trained_one(bundle: Path, trained: Trained) -> None:
    model = stillhouse.load(bundle)
    raw = trained.evaluation.inputs
    trained.student.eval()
    with torch.inference_mode():
        expected = trained.student(trained.preprocessing(raw))
        assert torch.equal(model(model.preprocessing(raw)), expected)
    assert not model.training
    assert model.label_names == tuple(trained.label_names)
    predictions = predicted(model, raw, batch_size=7)
    assert [prediction.index for prediction in predictions] == expected.argmax(1).tolist()
    assert sum(predicted(model, raw[0])[0].probabilities) == pytest.approx(1)


def test_the_weights_alone_are_a_checkpoint_that_can_teach(exported: Exported, scratch: Path, trained: Trained) -> None:
    path = next(file.file for file in exported.files if file.role == "safetensors")
    checkpoint = load_checkpoint(scratch / path)
    assert checkpoint.architecture == trained.architecture
    assert checkpoint.normalization == trained.preprocessing.normalization


ONNX_CHECK = """
import sys
import numpy as np, onnxruntime, stillhouse, torch
model = stillhouse.load(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
for size in (1, 7):
    inputs = torch.randn(size, *model.preprocessing.input_shape)
    (logits,) = session.run(["logits"], {"input": inputs.numpy()})
    with torch.inference_mode():
        assert np.abs(logits - model(inputs).numpy()).max() < 1e-4
print("same")
"""


def test_onnx_answers_any_batch_like_torch(exported: Exported, scratch: Path, bundle: Path) -> None:
    path = next(file.file for file in exported.files if file.role == "onnx")
    command = [sys.executable, "-c", ONNX_CHECK, str(bundle), str(scratch / path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"ORT_DISABLE_TELEMETRY": "1"})
    assert done.stdout == "same\n", done.stderr


def test_onnx_is_one_file_and_names_no_folder_of_this_machine(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        content = archive.read("model.onnx")
    model = onnx.load_model_from_string(content)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b"site-packages" not in content


def test_the_cards_snippet_runs_in_a_fresh_process(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        card = archive.read("README.md").decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet], cwd=bundle.parent, capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"\d [01]\.\d+\n", done.stdout), done.stderr


def test_the_same_files_give_the_same_zip(bundle: Path) -> None:
    before = bundle.read_bytes()
    for path in bundle.parent.iterdir():
        path.touch()
    _zip(bundle.parent)
    assert bundle.read_bytes() == before


def _shift_weights(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["head.bias"][3] += 0.01
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def _shift_mean(folder: Path) -> None:
    path = folder / "preprocessing.json"
    path.write_text(path.read_text().replace("0.1307", "0.1407"))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(("damage", "told"), [
    (_shift_weights, r"outputs differ by up to 0\.01"),
    (_shift_mean, "outputs differ"),
    (_truncate, "ended with status 1.*SafetensorError"),
], ids=["weights", "preprocessing", "truncated"])
def test_files_that_answer_otherwise_are_refused(
    damage: object, told: str, bundle: Path, trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    folder = tmp_path / "export"
    folder.mkdir()
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    damage(folder)
    with pytest.raises(ExportMismatchError, match=told):
        prove(
            folder, student=trained.student.eval(), preprocessing=trained.preprocessing, evaluation=trained.evaluation,
            formats=["safetensors"], work=tmp_path / "work",
        )
    assert ("Traceback" in capfd.readouterr().err) == (damage is _truncate)  # what the process said is in the log


def test_a_table_without_onnx_is_exported_too(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    trained = make_trained(tmp_path / "inputs", is_table=True, label_names=["no", "yes"])
    spec = trained.spec.model_copy(update={"export": Export(formats=["safetensors"])})
    exported = replace(trained, spec=spec).export(tmp_path)
    assert {file.role for file in exported.files} == {"bundle", "safetensors", "report_html"}
    model = stillhouse.load(tmp_path / "export/student.zip")
    assert predicted(model, trained.evaluation.inputs[0])[0].label in {"no", "yes"}
    with zipfile.ZipFile(tmp_path / "export/student.zip") as archive:
        assert b"model.onnx" not in archive.read("README.md")
