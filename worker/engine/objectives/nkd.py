"""Normalised distillation (Yang and others, 2023)."""

import torch
from torch import Tensor

from worker.engine.objectives.distributions import other_classes
from worker.engine.objectives.views import Views, wide


def nkd(views: Views, *, gamma: float, temperature: float) -> Tensor:
    """-p_y log q_y at temperature 1, and gamma T^2 cross-entropy among the other classes at T.

    Mean over labelled items; in nats, the second part times T^2.
    """
    student, taught = wide(views.student), wide(views.soft_labels_at(temperature))
    labels = views.classes
    true, others = labels[:, None], other_classes(labels, student.shape[1])
    log_q = torch.log_softmax(student, dim=1).gather(1, true)
    log_p = torch.log_softmax(wide(views.soft_labels), dim=1).gather(1, true)
    log_others_q = torch.log_softmax(student.gather(1, others) / temperature, dim=1)
    others_p = torch.softmax(taught.gather(1, others) / temperature, dim=1)
    among_others = (others_p * log_others_q).sum(dim=1)
    return views.mean_of_labelled(-(log_p.exp() * log_q).squeeze(1) - gamma * temperature**2 * among_others)
