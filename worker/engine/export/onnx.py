"""The student as one ONNX file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

INPUT: Final = "input"
# By the kind of task.
OUTPUTS: Final[Mapping[str, str]] = {
    "classification": "logits", "multi_label": "logits", "regression": "values", "embedding": "embedding",
}


def export_onnx(network: nn.Module, input_shape: Sequence[int], path: Path, *, output: str = "logits") -> None:
    """Write the network, in eval mode on the CPU, with a free batch axis: `input` (batch, *input_shape) -> `output`.

    Takes some seconds, since torch traces the network symbolically.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells at length what is not installed
    # Two samples, since torch takes an axis of one for a constant.
    program = torch.onnx.export(
        network,
        (torch.zeros(2, *input_shape),),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[INPUT],
        output_names=[output],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    if program is None:
        raise RuntimeError("torch.onnx gave no program")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces: they name folders of this machine, and differ between machines
    program.save(path, external_data=False)
