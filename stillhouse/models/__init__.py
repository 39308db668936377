"""Models by name, and how they are written and read. Needs torch."""

from stillhouse.models.checkpoint import (
    Checkpoint,
    LoadedWeights,
    build_with,
    load_checkpoint,
    load_weights,
    output_tensors,
    save_checkpoint,
    saved_bytes,
)
from stillhouse.models.registry import build, build_complete, complete, count_parameters, describe, outlined
from stillhouse.models.weights import check_weights

__all__ = [
    "Checkpoint", "LoadedWeights", "build", "build_complete", "build_with", "check_weights", "complete",
    "count_parameters", "describe", "load_checkpoint", "load_weights", "outlined", "output_tensors", "save_checkpoint",
    "saved_bytes",
]
