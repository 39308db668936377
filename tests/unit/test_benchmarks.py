"""What the long benchmarks compute beside the engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.hinton import OMITTED, best_bias, num_errors
from benchmarks.idx import Digits, read_digits, write_digits
from benchmarks.kept import Kept, Result
from benchmarks.mnist import EXAMPLE
from benchmarks.objectives import BASELINE, CONTROL, figures
from stillhouse.contract.spec import Training


def test_the_bias_of_an_omitted_class_is_the_middle_of_the_best_ones() -> None:
    logits = torch.zeros(4, 10)
    logits[:, 0] = torch.tensor([3.0, 5.0, 9.0, 1.0])  # by how much class 3 is behind
    labels = np.array([OMITTED, OMITTED, 0, 7], np.uint8)  # the last is wrong whatever the bias
    digits = Digits(np.zeros((4, 28, 28), np.uint8), labels)
    assert num_errors(logits, digits) == 3
    bias = best_bias(logits, digits)
    assert bias == pytest.approx(7.0, abs=0.05)
    logits[:, OMITTED] += bias
    assert num_errors(logits, digits) == 1


def test_written_digits_are_those_that_were_read(tmp_path: Path) -> None:
    digits = read_digits(EXAMPLE, "t10k")[:7]
    files = write_digits(tmp_path, "part", digits)
    assert files["images"].read_bytes()[:16] == bytes([0, 0, 8, 3, 0, 0, 0, 7, 0, 0, 0, 28, 0, 0, 0, 28])
    assert files["images"].read_bytes()[16:] == digits.images.tobytes()
    assert files["labels"].read_bytes() == bytes([0, 0, 8, 1, 0, 0, 0, 7]) + digits.labels.tobytes()


def test_a_result_is_made_once_for_each_spec(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(stem: Path) -> Result:
        made.append(stem)
        return {"number": len(made)}

    kept = Kept(tmp_path)
    assert kept.result(Training(epochs=1), make) == kept.result(Training(epochs=1), make) == {"number": 1}
    assert Kept(tmp_path).result(Training(epochs=2), make) == {"number": 2}
    assert made[0] == kept.file(Training(epochs=1), "")


def test_objectives_are_told_apart_by_gaps_beyond_twice_the_standard_error() -> None:
    def results(*accuracies: float) -> list[Result]:
        return [
            {
                "seconds": 1.0, **{
                    split: {"accuracy": accuracy, "agreement": accuracy} for split in ("validation", "test")
                },
            }
            for accuracy in accuracies
        ]

    found = figures({
        CONTROL: results(80.0, 81.0, 82.0), BASELINE: results(84.0, 85.0, 86.0), "same": results(84.1, 84.9, 86.0),
        "better": results(86.0, 87.1, 88.0), "steady": results(84.01, 85.01, 86.01), "noisy": results(80.0, 85.0, 99.0),
    })
    assert found["differ_from_kl"] == [CONTROL, "better"]  # not the steady one: its tiny spread is luck
    assert set(found["differ_from_control"]) == {BASELINE, "same", "better", "steady"}
    assert found["gap_to_kl"]["better"]["mean"] == pytest.approx(6.1 / 3)
    assert found["gap_to_kl"]["better"]["standard_error"] == pytest.approx(0.1 / 3)
    json.dumps(found)
