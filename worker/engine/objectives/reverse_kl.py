"""The divergence that seeks the teacher's main classes (Gu, Dong, Wei and Huang, 2024)."""

import torch
from torch import Tensor

from worker.engine.objectives.distributions import divergence
from worker.engine.objectives.views import Views, wide


def reverse_kl(views: Views, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(student/T) || softmax(teacher/T)), mean over items; a scalar, in nats times T^2."""
    log_student = torch.log_softmax(wide(views.student) / temperature, dim=1)
    log_teacher = torch.log_softmax(wide(views.soft_labels_at(temperature)) / temperature, dim=1)
    return divergence(log_student, log_teacher).mean() * temperature**2
