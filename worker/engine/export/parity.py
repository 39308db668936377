"""The fresh process: open the exported files as a user would, answer, and compare with the trained model's answers.

`python -m worker.engine.export.parity FOLDER WORK FORMAT...`; run by `prove`. It exports the ONNX file too, since what
that takes to import must not weigh on the trainer, and ONNX Runtime starts threads. Not imported by the package.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from stillhouse.contract.report import Parity
from stillhouse.models.bundle import CONFIG, ONNX, PREPROCESSING, WEIGHTS, Config, build_network
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.export.likeness import compare
from worker.engine.export.onnx import INPUT, OUTPUTS, export_onnx
from worker.engine.export.prove import RESULT, SAMPLES, answer_in_batches, batch_size


def main(folder: Path, work: Path, formats: Sequence[str]) -> None:
    """Write the comparison of each format as JSON."""
    samples = safetensors.torch.load_file(work / SAMPLES)
    preprocessing = Preprocessing.from_json((folder / PREPROCESSING).read_bytes())
    config = (folder / CONFIG).read_bytes()
    task = Config.model_validate_json(config).task
    network = build_network(config, (folder / WEIGHTS).read_bytes())
    inputs = preprocessing(samples["inputs"])
    parities = [compare("safetensors", task, answer_in_batches(network, inputs), samples)]
    if "onnx" in formats:
        answered = _answer_with_onnx(network, inputs, folder / ONNX, OUTPUTS[task.kind])
        parities.append(compare("onnx", task, answered, samples))
    (work / RESULT).write_bytes(TypeAdapter(list[Parity]).dump_json(parities))


def _answer_with_onnx(network: nn.Module, inputs: Tensor, path: Path, output: str) -> Tensor:
    export_onnx(network, inputs.shape[1:], path, output=output)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # The first sample goes alone: a batch axis that was frozen at export shows here.
    parts = [inputs[:1], *torch.split(inputs[1:], batch_size(inputs))] if len(inputs) > 1 else [inputs]
    return torch.from_numpy(np.concatenate([session.run([output], {INPUT: part.numpy()})[0] for part in parts]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
