"""Have a fresh process open the exported files and answer, and refuse them unless it answers like the trained model."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from stillhouse.contract.failures import ExportMismatchError
from stillhouse.contract.report import Parity
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.code import code_folder

MODULE: Final = "worker.engine.export.parity"
SAMPLES: Final = "samples.safetensors"
RESULT: Final = "parity.json"

MAX_SAMPLES: Final = 10_000
MAX_SAMPLE_BYTES: Final = 256 * 1024 * 1024
# ONNX Runtime adds up in another order than torch: the bound grows with the outputs.
TOLERANCE: Final = 1e-4
TIMEOUT_SECONDS: Final = 1800.0
_MAX_BATCH: Final = 1024
_MAX_BATCH_VALUES: Final = 4 * 1024 * 1024

_PARITIES: Final = TypeAdapter(list[Parity])


@dataclass(frozen=True)
class Evaluation:
    """The samples on which the exported files must answer like the trained model: raw, as the data has them."""

    inputs: Tensor  # (N, ...), or of more samples where `ids` tells which
    labels: Tensor | None
    mask: Tensor | None = None  # (N,) bool: which samples have a label; all of them where it is None
    ids: Tensor | None = None  # (N,) int64: places of the samples in `inputs`

    def __len__(self) -> int:
        return len(self.inputs if self.ids is None else self.ids)

    def known_labels(self) -> dict[str, Tensor]:
        """`labels` (K, ...) and their samples' `places` (K,); nothing where there are none."""
        if self.labels is None:
            return {}
        places = torch.arange(len(self.inputs)) if self.mask is None else self.mask.cpu().nonzero().squeeze(1)
        return {"labels": self.labels.cpu()[places].contiguous(), "places": places}


def prove(
    folder: Path,
    *,
    student: nn.Module,
    preprocessing: Preprocessing,
    evaluation: Evaluation,
    formats: Sequence[str],
    work: Path,
) -> list[Parity]:
    """Check the files in `folder` against `student`; writes model.onnx into it where `formats` ask for it.

    Raises ExportMismatchError.
    """
    work.mkdir(parents=True, exist_ok=True)
    tolerance = _write_samples(work / SAMPLES, student, preprocessing, _sample(evaluation))
    _run(folder, work, formats)
    parities = _PARITIES.validate_json((work / RESULT).read_bytes())
    for parity in parities:
        _check(parity, tolerance)
    return parities


def answer_in_batches(model: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs (N, C) of normalised inputs, in batches that fit in memory."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in torch.split(inputs, batch_size(inputs))])


def batch_size(inputs: Tensor) -> int:
    """Samples that go through a model at once: fewer where each is big."""
    return max(1, min(_MAX_BATCH, _MAX_BATCH_VALUES // max(1, prod(inputs.shape[1:]))))


def _sample(evaluation: Evaluation) -> Evaluation:
    """The whole split, or evenly spaced samples of a big one."""
    total = len(evaluation)
    bytes_each = max(1, evaluation.inputs[:1].nbytes)
    kept = min(total, MAX_SAMPLES, max(1, MAX_SAMPLE_BYTES // bytes_each))
    places = torch.linspace(0, total - 1, kept).round().long()
    labels, mask = (None if each is None else each.cpu()[places] for each in (evaluation.labels, evaluation.mask))
    rows = places if evaluation.ids is None else evaluation.ids[places]
    return Evaluation(evaluation.inputs[rows.to(evaluation.inputs.device)].cpu(), labels, mask)


def _write_samples(path: Path, student: nn.Module, preprocessing: Preprocessing, sample: Evaluation) -> float:
    """Hand over the samples with the trained model's answers; gives the difference of outputs that is allowed."""
    outputs = answer_in_batches(student, preprocessing(sample.inputs))
    tensors = {"inputs": sample.inputs.contiguous(), "outputs": outputs.contiguous(), **sample.known_labels()}
    safetensors.torch.save_file(tensors, path)
    return TOLERANCE * max(1.0, outputs.abs().max().item())


def _run(folder: Path, work: Path, formats: Sequence[str]) -> None:
    # -P: what lies in the working folder must not be imported. No new session: it dies with the trainer's group.
    command = [sys.executable, "-P", "-m", MODULE, str(folder), str(work), *formats]
    try:
        done = subprocess.run(
            command, cwd=work, env=_scrubbed(work), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS, check=False, text=True, errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise ExportMismatchError(f"checking the exported files took longer than {TIMEOUT_SECONDS:.0f} s") from error
    if done.stdout:
        sys.stderr.write(done.stdout)  # into the job's log
    if done.returncode != 0:
        raise ExportMismatchError(
            f"the process that opens the exported files ended with status {done.returncode}; "
            f"the job's log has its output: {_last_line(done.stdout)}"
        )


def _scrubbed(work: Path) -> Mapping[str, str]:
    """No secret of the worker, no thread beyond the trainer's share, no telemetry."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
    return kept | {
        "HOME": str(work),
        "TMPDIR": str(work),
        "PYTHONPATH": code_folder(),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "OMP_WAIT_POLICY": "passive",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _check(parity: Parity, tolerance: float) -> None:
    # Within the tolerance another decision is possible only where two logits, or logit and threshold, are as good as
    # equal.
    if not parity.max_output_difference <= tolerance:  # NaN is no match either
        same = parity.same_decisions
        decided = "" if same is None else f"; {same:.2%} of the decisions are the same"
        raise ExportMismatchError(
            f"the exported {parity.format} does not answer as the trained model did: outputs differ by up to "
            f"{parity.max_output_difference:.3g} on {parity.num_samples} samples, and {tolerance:.3g} is allowed"
            f"{decided}"
        )


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1][:512] if lines else "it printed nothing"
