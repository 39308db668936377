"""Decoupled distillation (Zhao and others, 2022)."""

import torch
from torch import Tensor

from worker.engine.objectives.distributions import divergence, other_classes
from worker.engine.objectives.views import Views, wide


def dkd(views: Views, *, alpha: float, beta: float, temperature: float) -> Tensor:
    """T^2 (alpha KL on true class or not + beta KL among the other classes), mean over labelled items.

    In nats times T^2. The true class is left out, not masked by a large number, so no logit is too large.
    """
    labels = views.classes
    sure_q, others_q = _decoupled(wide(views.student) / temperature, labels)
    sure_p, others_p = _decoupled(wide(views.soft_labels_at(temperature)) / temperature, labels)
    per_item = alpha * divergence(sure_p, sure_q) + beta * divergence(others_p, others_q)
    return views.mean_of_labelled(per_item) * temperature**2


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (true class, any other), (N, 2), and of the other classes among themselves, (N, C - 1)."""
    others = other_classes(labels, logits.shape[1])
    log_all = torch.log_softmax(logits, dim=1)
    # log(1 - p_y) as a sum over the others: exact where p_y rounds to 1.
    log_other = log_all.gather(1, others).logsumexp(dim=1, keepdim=True)
    sure = torch.cat([log_all.gather(1, labels[:, None]), log_other], dim=1)
    return sure, torch.log_softmax(logits.gather(1, others), dim=1)
