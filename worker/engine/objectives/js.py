"""Generalised Jensen-Shannon divergence (Agarwal and others, 2024)."""

import math

import torch
from torch import Tensor

from worker.engine.objectives.distributions import divergence
from worker.engine.objectives.views import Views, wide


def js(views: Views, *, beta: float, temperature: float) -> Tensor:
    """T^2 (beta KL(p || m) + (1 - beta) KL(q || m)), m = beta p + (1 - beta) q, mean over items; in nats times T^2.

    p and q are the softmax of teacher and student at T.
    """
    log_q = torch.log_softmax(wide(views.student) / temperature, dim=1)
    log_p = torch.log_softmax(wide(views.soft_labels_at(temperature)) / temperature, dim=1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    per_item = beta * divergence(log_p, log_m) + (1 - beta) * divergence(log_q, log_m)
    return per_item.mean() * temperature**2
