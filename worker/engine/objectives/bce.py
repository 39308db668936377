"""Soft labels of independent yes-or-no questions."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def bce(views: Views, *, temperature: float) -> Tensor:
    """T^2 cross-entropy of sigmoid(student/T) under sigmoid(teacher/T), sum over labels, mean over items.

    A scalar, in nats times T^2.
    """
    student = wide(views.student) / temperature
    soft = torch.sigmoid(wide(views.label_odds_at(temperature)) / temperature)
    total = functional.binary_cross_entropy_with_logits(student, soft, reduction="sum")
    return total * (temperature**2 / len(student))
