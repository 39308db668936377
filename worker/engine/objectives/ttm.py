"""Transformed teacher matching (Zheng and Yang, 2024)."""

import torch
from torch import Tensor

from worker.engine.objectives.distributions import divergence
from worker.engine.objectives.views import Views, wide


def ttm(views: Views, *, gamma: float) -> Tensor:
    """KL(p^gamma / sum p^gamma || softmax(student)), p the teacher's softmax, mean over items; a scalar, in nats."""
    log_powered = torch.log_softmax(gamma * wide(views.soft_labels), dim=1)
    return divergence(log_powered, torch.log_softmax(wide(views.student), dim=1)).mean()
