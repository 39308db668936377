"""Transformed teacher matching with a weight for each item (Zheng and Yang, 2024)."""

import torch
from torch import Tensor

from worker.engine.objectives.distributions import divergence
from worker.engine.objectives.views import Views, wide


def wttm(views: Views, *, gamma: float) -> Tensor:
    """(sum p^gamma) KL(p^gamma / sum p^gamma || softmax(student)), mean over items; a scalar, in nats.

    p is the teacher's softmax. The items' weights are not normalised.
    """
    powered = gamma * torch.log_softmax(wide(views.soft_labels), dim=1)
    log_weight = powered.logsumexp(dim=1, keepdim=True)
    per_item = divergence(powered - log_weight, torch.log_softmax(wide(views.student), dim=1))
    return (log_weight.exp().squeeze(1) * per_item).mean()
