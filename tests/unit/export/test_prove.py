import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stillhouse.contract.failures import ExportMismatchError
from stillhouse.contract.report import Parity
from worker.engine.export.prove import MAX_SAMPLES, Evaluation, _check, _sample, _scrubbed, batch_size


def test_a_big_split_is_sampled_evenly_and_a_small_one_taken_whole() -> None:
    whole = Evaluation(torch.arange(7), torch.arange(7))
    assert torch.equal(_sample(whole).inputs, whole.inputs)
    big = torch.arange(100_000)
    sample = _sample(Evaluation(big, big))
    assert sample.labels is not None
    assert torch.equal(sample.inputs, sample.labels)
    assert (int(sample.inputs[0]), int(sample.inputs[-1])) == (0, 99_999)
    assert len(sample.inputs) == len(sample.inputs.unique()) == MAX_SAMPLES
    assert _sample(Evaluation(big, None)).labels is None


def test_only_the_samples_of_the_split_are_read() -> None:
    inputs, ids = torch.arange(9) * 10, torch.tensor([1, 4, 8])
    sample = _sample(Evaluation(inputs, torch.tensor([5, 6, 7]), ids=ids))
    assert sample.inputs.tolist() == [10, 40, 80]
    assert sample.labels is not None
    assert sample.labels.tolist() == [5, 6, 7]
    assert len(sample) == 3


def test_batches_are_smaller_where_samples_are_big() -> None:
    assert batch_size(torch.empty(1, 1, 28, 28)) == 1024
    assert batch_size(torch.empty(1, 3, 224, 224)) == 27
    assert batch_size(torch.empty(1, 3, 4096, 4096)) == 1


@pytest.mark.parametrize("difference", [0.2, float("nan"), float("inf")])
def test_logits_beyond_the_tolerance_are_a_mismatch(difference: float) -> None:
    parity = Parity(format="onnx", num_samples=10, max_output_difference=difference, same_decisions=1.0)
    with pytest.raises(ExportMismatchError, match="exported onnx does not answer"):
        _check(parity, 0.1)


def test_the_fresh_process_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_BOOTSTRAP_KEY", "secret")
    scrubbed = _scrubbed(tmp_path)
    assert "secret" not in scrubbed.values()
    assert scrubbed["ORT_DISABLE_TELEMETRY"] == "1"
    assert scrubbed["HOME"] == str(tmp_path)


def test_the_trainer_loads_nothing_that_starts_threads() -> None:
    names = {"onnxruntime", "onnxscript", "matplotlib"}
    code = f"import sys, worker.engine.export, worker.engine.report; print(sorted({names!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.stdout == "[]\n", done.stderr
