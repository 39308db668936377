"""The built-in model families, and how a model is written and read. Needs torch."""

from stillhouse.models.checkpoint import Checkpoint, check_weights, load_checkpoint, save_checkpoint, saved_bytes
from stillhouse.models.registry import build, complete, count_parameters, describe

__all__ = [
    "Checkpoint", "build", "check_weights", "complete", "count_parameters", "describe", "load_checkpoint",
    "save_checkpoint", "saved_bytes",
]
