"""The teacher and the students that the engine is measured on, as modules for hand-written loops."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from benchmarks.mnist import TEACHER
from stillhouse.contract.spec import Cnn, CrossEntropy, Kl, Training
from stillhouse.models import load_checkpoint
from stillhouse.models.registry import build_complete

BATCH: Final = 128
KL: Final = Kl()
CE: Final = CrossEntropy(weight=0.5)
# 6.1 times fewer multiply-accumulates than the teacher of examples/mnist (0.51 and 3.10 million per image).
CONVOLUTIONAL: Final = Cnn(channels=[8, 16, 32])


class Feature(NamedTuple):
    """A term on layers, in the words of the job spec. Pairs are of the same path in both models."""

    weight: float
    paths: list[str]
    arguments: dict[str, float] = {}  # noqa: RUF012 - never changed

    def term(self, kind: str) -> dict[str, Any]:
        """The term of the spec."""
        pairs = [{"student": path, "teacher": path} for path in self.paths]
        return {"kind": kind, "weight": self.weight, "pairs": pairs, **self.arguments}


# Behind the first and second pooling, and the vector before the head. Weights and factors are the published ones.
FEATURES: Final = {
    "at": Feature(1000.0, ["body.3", "body.7"]),
    "sp": Feature(3000.0, ["body.7"]),
    "rkd": Feature(1.0, ["body"], {"distance_weight": 25.0, "angle_weight": 50.0}),
}


def student(pair: str) -> nn.Module:
    """A new student: 784-64-10 of the pair `mlp`, or the convolutional one of `cnn`."""
    if pair == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    return build_complete(CONVOLUTIONAL.model_copy(update={"num_classes": 10, "input_shape": [1, 28, 28]}))


def teacher(folder: Path) -> nn.Module:
    """The teacher, frozen."""
    return load_checkpoint(folder / TEACHER.name).model.eval().requires_grad_(requires_grad=False)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The job's default optimiser."""
    chosen = Training().optimizer
    assert chosen.kind == "adamw"
    return torch.optim.AdamW(
        model.parameters(), lr=chosen.learning_rate, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon,
        weight_decay=chosen.weight_decay, fused=True,
    )
