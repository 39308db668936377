"""A model to learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.contract.spec import Architecture
from stillhouse.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Teacher:
    """Frozen, in evaluation mode, with its own way to read raw samples."""

    model: nn.Module
    architecture: Architecture  # complete
    preprocessing: Preprocessing


@torch.no_grad()
def answer(teacher: Teacher, arranged: Tensor) -> Tensor:
    """The teacher's logits (N, num_classes) of arranged raw samples, float32."""
    logits: Tensor = teacher.model(teacher.preprocessing.normalize(arranged))
    return logits
